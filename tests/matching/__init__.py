"""The proof of matching: random programs replay, and no twin of one is answered wrongly.

    python -m tests.matching --programs 10000 --seed 1            the whole proof, with its table
    python -m tests.matching --first 17 --programs 1 --misses 9   one program, and why it missed
    python -m tests.matching --keep found                         with each wrong answer as a file
    python -m tests.matching --again found/wrong-0.json           one of them, call by call
    python -m tests.matching --world takes --world learned        only programs of these worlds
    python -m tests.matching --guards --programs 100              without each guard of the matcher
    python -m tests.matching --guards --programs 0                the same over traps: quick

    values      values as data: made anew by each run, called by name in its trace
    worlds      what programs are recorded and replayed under, a table
    programs    random programs, of a seed and a number
    traps       calls with a twin that one guard alone keeps from a wrong answer, a table
    runner      runs a program against a client, synchronous or not
    twins       the kinds of real difference, a table
    process     records, replays or lives a file of programs, in a process of its own
    proof       batches of processes, verdicts and the table
    springs     takes out every guard over programs of one trap each
    guards      what of the matcher can be taken out, a table

A program is JSON (`runner` says of what form). It is recorded by one process and replayed by
another, with another hash seed, on another day and with no server; its trace, with each made value
called by its name, must be the same. A twin is the same program with one real difference (`twins`).
Its replay must miss, or answer as a live server answers the twin; anything else is a wrong answer.
The comparison ends at the first miss.

What the table tells of a kind: "tried" twins; "not reached", as a call before the difference
missed; "missed"; "right", every call answered as live; "let through", the differing call itself was
answered; "WRONG". Kinds with a documented limit are told apart and not counted as wrong.
"""
