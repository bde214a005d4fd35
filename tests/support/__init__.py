"""What tests, demo and benchmarks share: a MongoDB server, and programs in processes."""
