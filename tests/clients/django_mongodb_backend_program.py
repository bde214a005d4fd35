"""django-mongodb-backend under Django's ORM: schema, queries, relations, a transaction, errors."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import django
from bson import ObjectId
from django.apps import AppConfig
from django.conf import settings


class Shop(AppConfig):
    name = __name__
    label = "shop"
    path = __file__


settings.configure(
    DATABASES={"default": {"ENGINE": "django_mongodb_backend", "NAME": "unnamed"}},
    DEFAULT_AUTO_FIELD="django_mongodb_backend.fields.ObjectIdAutoField",
    INSTALLED_APPS=[f"{__name__}.Shop"],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    USE_TZ=False,
)
django.setup()

from django.contrib.auth.hashers import check_password, make_password  # noqa: E402
from django.core.exceptions import ValidationError  # noqa: E402
from django.db import (  # noqa: E402
    DatabaseError,
    IntegrityError,
    connection,
    models,
)
from django.db.models import Avg, Count, F, Prefetch, Q, Sum, Value  # noqa: E402
from django.db.models.functions import Concat, Length, Upper  # noqa: E402
from django.utils.crypto import get_random_string  # noqa: E402
from django.utils.timezone import now  # noqa: E402
from django_mongodb_backend.fields import (  # noqa: E402
    ArrayField,
    EmbeddedModelField,
    ObjectIdAutoField,
    ObjectIdField,
)
from django_mongodb_backend.managers import MongoManager  # noqa: E402
from django_mongodb_backend.models import EmbeddedModel  # noqa: E402

Say = Callable[[str, Any], None]


def new_code() -> str:
    return secrets.token_urlsafe(64)


class Author(models.Model):
    name = models.CharField(max_length=20, unique=True)
    logins = models.IntegerField(default=0)
    born = models.DateField(null=True)

    objects = MongoManager()

    class Meta:
        app_label = "shop"
        indexes = [models.Index(fields=["born", "-logins"], name="born_logins")]  # noqa: RUF012


class Cover(EmbeddedModel):
    colour = models.CharField(max_length=10)
    weight = models.FloatField(default=0.5)

    class Meta:
        app_label = "shop"


class Book(models.Model):
    id = ObjectIdAutoField(primary_key=True)
    title = models.CharField(max_length=30)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    price = models.DecimalField(max_digits=6, decimal_places=2, default=Decimal("1.50"))
    printed = models.DateTimeField(default=datetime(2020, 2, 3, 4, 5, 6))
    tags = ArrayField(models.CharField(max_length=5), default=list)
    cover = EmbeddedModelField(Cover, null=True)
    data = models.JSONField(null=True)

    class Meta:
        app_label = "shop"


class Visit(models.Model):
    key = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    mark = ObjectIdField(default=ObjectId, unique=True)
    code = models.CharField(max_length=86, default=new_code)
    slug = models.SlugField(unique=True, max_length=60)
    secret = models.CharField(max_length=200, default="")
    author = models.ForeignKey(Author, models.CASCADE, null=True)
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)
    expires = models.DateTimeField()
    pages = ArrayField(models.CharField(max_length=200), default=list)
    data = models.JSONField(default=dict)

    class Meta:
        app_label = "shop"


class Step(models.Model):
    visit = models.ForeignKey(Visit, models.CASCADE, related_name="steps")
    at = models.DateTimeField(default=now)

    class Meta:
        app_label = "shop"


MODELS = (Author, Book, Visit, Step)


def main(uri: str, database: str, say: Say) -> None:
    warnings.simplefilter("ignore")
    connection.settings_dict.update({"NAME": database, "HOST": uri})
    schema(say)
    writes(say)
    queries(say)
    updates(say)
    transactions(say)
    made_values(say)
    errors(say)
    with connection.schema_editor() as editor:
        for model in MODELS:
            editor.delete_model(model)
    say("dropped", connection.introspection.table_names())
    connection.close()


def attempt(say: Say, label: str, ask: Callable[[], Any]) -> None:
    """Tell a query's answer, or the error of a server that lacks one of its stages."""
    try:
        say(label, ask())
    except DatabaseError as error:
        say(label, (type(error).__name__, error.__cause__.code))


def schema(say: Say) -> None:
    with connection.schema_editor() as editor:
        for model in MODELS:
            editor.create_model(model)
    say("tables", sorted(connection.introspection.table_names()))
    constraints = connection.introspection.get_constraints(None, "shop_author")
    say("constraints", sorted((name, row["unique"]) for name, row in constraints.items()))


def writes(say: Say) -> None:
    ann = Author.objects.create(name="Ann", born=date(1990, 1, 2))
    bob, cid = Author.objects.bulk_create([Author(name="Bob", logins=3), Author(name="Cid")])
    one = Book.objects.create(title="One", author=ann, tags=["a", "b"], cover=Cover(colour="red"))
    Book.objects.bulk_create(
        [
            Book(title="Two", author=ann, price=Decimal("20"), data={"pages": [1, {"x": None}]}),
            Book(title="Three", author=bob, tags=["b"]),
        ]
    )
    say("ids", (ann.pk, cid.pk, one.pk))
    one.title = "One again"
    one.save(update_fields=["title"])
    say("get_or_create", Author.objects.get_or_create(name="Dee", defaults={"logins": 1})[1])
    say("update_or_create", Author.objects.update_or_create(name="Dee", defaults={"logins": 2})[1])
    one.refresh_from_db()
    say("refreshed", (one.title, one.price, one.printed, one.cover.colour, one.author.name))


def queries(say: Say) -> None:
    say("values", list(Author.objects.order_by("name").values("name", "logins", "born")))
    say("filter", list(Book.objects.filter(price__lt=5).order_by("title").values_list("title")))
    either = Q(title__startswith="T") & ~Q(author__name="Bob")
    say("Q", list(Book.objects.filter(either).values_list("title", flat=True)))
    chosen = Author.objects.filter(name__in={"Ann", "Bob", "Cid"})
    say("in", sorted(author.name for author in chosen))
    attempt(say, "count", chosen.count)
    say("iexact", Author.objects.get(name__iexact="ANN").name)
    by_title = Book.objects.order_by("title")
    say("related", [(book.title, book.author.name) for book in by_title.select_related("author")])
    authors = Author.objects.prefetch_related(Prefetch("books", by_title)).order_by("name")
    say("prefetched", [(a.name, [b.title for b in a.books.all()]) for a in authors])
    say("embedded", [b.title for b in Book.objects.filter(cover__colour="red")])
    say("array", list(by_title.filter(tags__contains=["b"]).values_list("tags")))
    say("json", Book.objects.filter(data__pages__0=1).values_list("title", flat=True)[0])
    totals = {"n": Count("id"), "sum": Sum("price"), "mean": Avg("price")}
    attempt(say, "totals", lambda: Book.objects.aggregate(**totals))
    counted = Author.objects.annotate(n=Count("books")).filter(n__gt=0).order_by("-n")
    say("annotated", list(counted.values_list("name", "n")))
    named = Author.objects.annotate(shown=Concat(Upper("name"), Value("!")), long=Length("name"))
    say("functions", list(named.order_by("name").values_list("shown", "long")))
    say("slice", [a.name for a in Author.objects.order_by("-name")[1:3]])
    say("distinct", sorted(Book.objects.values_list("author__name", flat=True).distinct()))
    say("exists", (Author.objects.filter(name="Zoe").exists(), Author.objects.first() is not None))
    say("dates", list(Book.objects.dates("printed", "year")))
    say("iterator", [a.name for a in Author.objects.order_by("name").iterator(chunk_size=2)])
    stages = [{"$match": {"logins": {"$gt": 0}}}, {"$sort": {"name": 1}}]
    say("raw_aggregate", [a.name for a in Author.objects.raw_aggregate(stages)])
    say("explain", "queryPlanner" in str(Author.objects.filter(name="Ann").explain()))


def updates(say: Say) -> None:
    say("update", Author.objects.filter(logins__lt=3).update(logins=F("logins") + 10))
    ann = Author.objects.get(name="Ann")
    ann.logins = F("logins") + 1
    ann.save()
    ann.refresh_from_db()
    say("F", ann.logins)
    books = list(Book.objects.order_by("title"))
    for number, book in enumerate(books):
        book.price = Decimal(number)
    say("bulk_update", Book.objects.bulk_update(books, ["price"]))
    say("deleted", Author.objects.filter(name="Bob").delete())


def transactions(say: Say) -> None:
    from django_mongodb_backend import transaction

    with transaction.atomic():
        Author.objects.create(name="Eve")
    try:
        with transaction.atomic():
            Author.objects.create(name="Fay")
            say("inside", Author.objects.filter(name="Fay").exists())
            raise LookupError("undo")
    except LookupError:
        say("aborted", Author.objects.filter(name="Fay").exists())
    say("committed", Author.objects.filter(name="Eve").exists())


def made_values(say: Say) -> None:
    ann = Author.objects.get(name="Ann")
    day = timedelta(days=1)
    secret = make_password("pass", salt=get_random_string(86))
    one = Visit.objects.create(slug=f"v-{uuid4()}", secret=secret, author=ann, expires=now() + day)
    slugs = [f"v-{ObjectId()}" for _ in "ab"]
    two, three = Visit.objects.bulk_create(
        [Visit(slug=slug, expires=now() + day, code=get_random_string(86)) for slug in slugs]
    )
    say("visits", [(visit.pk, visit.mark, visit.code, visit.slug) for visit in (one, two, three)])
    kept = Visit.objects.get(pk=one.pk)
    say("secret", (check_password("pass", kept.secret), check_password("past", kept.secret)))
    for name in ("mark", "code", "slug"):
        found = Visit.objects.get(**{name: getattr(two, name)})
        say(f"by {name}", (found == two, getattr(found, name) == getattr(two, name)))
    some = Visit.objects.filter(pk__in={one.pk, two.pk, uuid4()})
    say("in", sorted(visit in (one, two) for visit in some))
    say("without", [v == three for v in Visit.objects.exclude(mark__in=[one.mark, two.mark])])
    say("alive", len(Visit.objects.filter(created__lte=now(), expires__gt=now())))
    say("of author", [v.author == ann for v in Visit.objects.filter(author__name="Ann")])
    Step.objects.bulk_create([Step(visit=one), Step(visit=two), Step(visit=one)])
    counted = Visit.objects.annotate(n=Count("steps")).order_by("-n").values_list("pk", "n")
    say("steps", [(key == one.pk, n) for key, n in counted])
    say("through", {step.visit_id == one.pk for step in Step.objects.filter(visit__code=one.code)})
    one.pages.append(f"/visits/{one.pk}?mark={one.mark}&at={now().isoformat()}")
    one.data = {str(one.mark): one.pk.hex, "at": now().isoformat()}
    one.save()
    kept.refresh_from_db()
    say("pages", (kept.pages == one.pages, kept.data == one.data, kept.pages))
    say("updated", (kept.updated > kept.created, kept.created <= now()))
    new = secrets.token_urlsafe(64)
    changed = Visit.objects.filter(code=two.code, expires__gt=now()).update(code=new, expires=now())
    say("rotated", (changed, Visit.objects.get(code=new) == two))
    slug = f"w-{uuid4()}"
    more = {"expires": now() + day, "author": ann}
    say("get_or_create", [Visit.objects.get_or_create(slug=slug, defaults=more)[1] for _ in "ab"])
    more["expires"] = now() + 2 * day
    late, made = Visit.objects.update_or_create(slug=slug, defaults=more)
    say("update_or_create", (made, late.slug == slug, late.expires > now() + day))
    try:
        Visit.objects.create(slug=slug, expires=now())
    except IntegrityError as error:
        say("made slug twice", str(error))
    say("deleted", one.delete())
    left = Visit.objects.filter(key__in=[one.pk, two.pk]).values_list("code", flat=True)
    say("left", [code == new for code in left])


def errors(say: Say) -> None:
    try:
        Author.objects.create(name="Ann")
    except IntegrityError as error:
        say("IntegrityError", str(error))
    try:
        Author(name="Ann", logins=1).full_clean()
    except ValidationError as error:
        say("ValidationError", error.message_dict)
    try:
        Author.objects.get(name="nobody")
    except Author.DoesNotExist as error:
        say("DoesNotExist", str(error))
