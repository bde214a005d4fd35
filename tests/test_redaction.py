"""Secrets become placeholders, whatever they look like and wherever they stand; replay fills in."""

from __future__ import annotations

import base64
import copy
import re
import time
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from timetracer.codec import TAGS, bson_to_json, from_json, to_json
from timetracer.redaction import (
    DEFAULT_NAMES,
    RedactionRules,
    Redactor,
    bind,
    find_placeholders,
    has_placeholders,
    is_sensitive_name,
    placeholder_value,
    substitute,
)


def redactor(**rules: Any) -> Redactor:
    return Redactor(RedactionRules(**rules), b"key of this run")


def tag(type_name: str, n: int, **more: Any) -> dict[str, Any]:
    return {"$redacted": {"type": type_name, "n": n, **more}}


def event(arguments: Any = None, data: Any = None, method: str = "FIND_ONE") -> dict[str, Any]:
    body = {"captured": True, "data": data}
    return {"method": method, "arguments": arguments or {}, "result": {"status": 0, "body": body}}


# -- names


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "passwd",
        "pwd",
        "passPhrase",
        "PassWord",
        "PASSWORD",
        "password2",
        "password_1",
        "userPassword",
        "newpassword",
        "password_confirmation",
        "passwordHash",
        "password_hash",
        "passwordhash",
        "tokenHASH",
        "hashedToken",
        "secret_salt",
        "clientSecret",
        "client-secret",
        "token",
        "X-API-Key",
        "apikey",
        "APIkey",
        "APIKey",
        "api.key",
        "reset_token",
        "access_token",
        "refreshTokens",
        "privateKey",
        "aws_secret_access_key",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "cookies",
        "session_id",
        "sessionid",
        "PHPSESSID",
        "JSESSIONID",
        "sid",
        "connect.sid",
        "X-CSRFToken",
        "csrf_token",
        "csrfmiddlewaretoken",
        "_xsrf",
        "otp",
        "totp_secret",
        "pin",
        "ssn",
        "cvv2",
        "cardNumber",
        "credit_card",
        "customer_iban",
        "jwt",
        "credentials",
        "X-Amz-Signature",
        "user[password]",
        "user%5Bpassword%5D",
    ],
)
def test_values_under_a_sensitive_name_are_redacted(name: str) -> None:
    assert is_sensitive_name(name)
    assert redactor().redact_event(event({name: "s3cr3t"}))["arguments"] == {name: "[redacted:1]"}


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer",
        "passage",
        "message",
        "shipping",
        "secretary",
        "author",
        "authors",
        "max_tokens",
        "tokens",
        "token_count",
        "token_type",
        "cookie_policy",
        "compass",
        "bypass",
        "passenger",
        "key",
        "keys",
        "primary_key",
        "public_key",
        "account_sid",
        "lsid",
        "map_pin",
        "pinned",
        "spin",
        "inside",
        "session",
        "salt",
        "body_hash",
        "resumeToken",
        "nextPageToken",
        "card",
        "password_policy",
        "password_reset_url",
        "card_type",
        "iban_valid",
        "ñtoken",
        "to\N{KELVIN SIGN}en",
    ],
)
def test_values_under_a_name_that_only_contains_one_stay(name: str) -> None:
    given_event = event({name: "plain"})
    assert not is_sensitive_name(name)
    assert redactor().redact_event(given_event) is given_event


@pytest.mark.parametrize(
    "key",
    [
        "user.password",
        "items.0.token",
        "$set.password",
        "users.$[].token",
        "users.$.token",
        "users.$[x].token",
        "password.hash",
        "tokens.0.token",
        "credentials.login",
    ],
)
def test_dotted_keys_count_by_their_parts(key: str) -> None:
    assert is_sensitive_name(key)


def test_a_kept_name_wins_over_the_tables_and_over_a_sensitive_parent() -> None:
    kept = redactor(keep_names=frozenset({"api_key", "login"}))
    arguments = {"apiKey": "a", "credentials": {"login": "ada", "pass": "x"}, "x.login": "b"}
    assert kept.redact_event(event(arguments))["arguments"] == {
        "apiKey": "a",
        "credentials": {"login": "ada", "pass": "[redacted:1]"},
        "x.login": "b",
    }


def test_more_names_are_whole_names_too() -> None:
    more = redactor(names=frozenset({"kundenNummer", "resume token", "field_7", "Größe"}))
    arguments = {
        **{"kunden_nummer": "a", "alteKundenNummer": "b", "resumeToken": "c", "field7": "d"},
        **{"field_8": "e", "kundennummern": "f", "Größe": "g"},
    }
    assert more.needs_redaction(b'{"x":{"alte-kunden-nummer":"b"}}')
    assert more.redact_event(event(arguments))["arguments"] == {
        **{"kunden_nummer": "[redacted:1]", "alteKundenNummer": "[redacted:2]"},
        **{"resumeToken": "[redacted:3]", "field7": "[redacted:4]", "field_8": "e"},
        **{"kundennummern": "f", "Größe": "[redacted:5]"},
    }


# -- what stands under a sensitive name


def test_every_leaf_below_is_redacted_and_operators_keep_their_shape() -> None:
    arguments = {
        "filter": {"token": {"$in": ["a", "b", "a"]}, "pin": {"$type": "string", "$regex": "^4"}},
        "update": {"$set": {"user.password": {"hash": "x", "rounds": 12}}, "$unset": {"otp": ""}},
    }
    assert redactor().redact_event(event(arguments))["arguments"] == {
        "filter": {
            "token": {"$in": ["[redacted:1]", "[redacted:2]", "[redacted:1]"]},
            "pin": {"$type": "string", "$regex": "[redacted:3]"},
        },
        "update": {
            "$set": {"user.password": {"hash": "[redacted:4]", "rounds": tag("int", 5)}},
            "$unset": {"otp": ""},
        },
    }


@pytest.mark.parametrize(
    "value",
    [
        {"projection": {"password": 0, "token": 1}},
        {"sort": [["token", -1]], "keys": [["token", 1], ["pin", "text"]]},
        {"keys": {"token": "hashed", "pin": 1}},
        {"filter": {"token": {"$exists": True}, "pin": None, "otp": {"$ne": ""}}},
        {"token": 1.0, "pin": {"$numberLong": "1"}, "x": {"$numberLong": "7"}},
        {"validator": {"$jsonSchema": {"properties": {"password": {"bsonType": "string"}}}}},
        {"update": {"$rename": {"password": "pw"}}},
        {"token_1": {"v": 2, "key": [["token", 1]], "name": "token_1"}},
        {"x": {"$escaped": {"$oid": "a", "$redacted": 1}}, "y": {"$minKey": 1}},
    ],
)
def test_what_tells_nothing_stays(value: Any) -> None:
    given_event = event(value, value)
    assert redactor().redact_event(given_event) is given_event


TYPES = [
    ("int", 4711, 1),
    ("int", {"$numberInt": "5"}, 1),
    ("long", {"$numberLong": "5"}, {"$numberLong": "1"}),
    ("double", 1.5, 1.0),
    ("double", {"$numberDouble": "NaN"}, 1.0),
    ("decimal", {"$numberDecimal": "1.50"}, {"$numberDecimal": "1"}),
    ("bigInt", {"$bigInt": str(10**30)}, {"$bigInt": str(2**64 + 1)}),
    ("objectId", {"$oid": "64b7f0c2a1b2c3d4e5f60718"}, {"$oid": "000000000000000000000001"}),
    ("date", {"$date": "2026-01-22T14:00:00.000Z"}, {"$date": "1970-01-01T00:00:01.000Z"}),
    ("uuid", {"$uuid": "0" * 8 + "-1111-2222-3333-444444444444"}, None),
    ("timestamp", {"$timestamp": {"t": 5, "i": 6}}, {"$timestamp": {"t": 1, "i": 1}}),
    ("regex", {"$regularExpression": {"pattern": "^a", "options": "i"}}, None),
    ("code", {"$code": "f()", "$scope": {"a": 5}}, {"$code": "redacted1"}),
    ("symbol", {"$symbol": "a"}, {"$symbol": "redacted1"}),
    ("rawBson", {"$rawBson": "DAAAABBhAAEAAAAA"}, {"$rawBson": "BQAAAAA="}),
    ("rawValue", {"$rawValue": "DAAAABAAAQAAAAA="}, None),
    ("surrogateText", {"$surrogateText": "7aCA"}, "redacted1"),
]


@pytest.mark.parametrize(("type_name", "value", "stand_in"), TYPES)
def test_a_placeholder_keeps_the_type(type_name: str, value: Any, stand_in: Any) -> None:
    recorded = redactor().redact_event(event({"token": value}))["arguments"]["token"]
    assert recorded == tag(type_name, 1)
    if stand_in is not None:
        assert placeholder_value(recorded) == stand_in
    from_json(placeholder_value(recorded))  # is valid
    bindings: dict[str, Any] = {}
    assert bind(recorded, value, bindings)
    assert bindings == {"1": value}


def test_a_binary_keeps_its_subtype() -> None:
    live = {"$binary": {"base64": "AAEC", "subType": "80"}}
    recorded = redactor().redact_event(event({"token": live}))["arguments"]["token"]
    assert recorded == tag("binary", 1, subType="80")
    assert placeholder_value(recorded)["$binary"]["subType"] == "80"
    assert bind(recorded, live, {})
    assert not bind(recorded, {"$binary": {"base64": "AAEC", "subType": "00"}}, {})


def test_every_tag_of_the_codec_survives_under_a_sensitive_name() -> None:
    live = to_json(
        {"token": [(1, {"a": "b"}), {"x", "y"}, {1: "c", "d": "e"}, {"$oid": "f"}, 2**70]}
    )
    recorded = redactor().redact_event(live)
    for text in ("b", "x", "y", "c", "e", "f", str(2**70)):
        assert f'"{text}"' not in orjson.dumps(recorded).decode()
    from_json(substitute(recorded, {}))
    assert {row.name for row in TAGS} >= {
        *("$escaped", "$pairs", "$pyTuple", "$pySet", "$pyFrozenset"),
        *("$rawBson", "$rawValue", "$surrogateText", "$redacted"),
    }


def test_bytes_that_json_cannot_show_go_as_a_whole_if_they_may_hold_a_secret() -> None:
    twice = b"\x02a\x00\x02\x00\x00\x00x\x00"
    harmless = (len(twice) * 2 + 5).to_bytes(4, "little") + twice * 2 + b"\0"
    secret = harmless.replace(b"\x02a\x00", b"\x02a\x00", 1)
    secret = (len(harmless) + 7).to_bytes(4, "little") + b"\x0apassword\0" + harmless[4:]
    stays = event(None, bson_to_json(harmless))
    assert "$rawBson" in stays["result"]["body"]["data"]
    assert redactor().redact_event(stays) is stays
    goes = redactor().redact_event(event(None, {"$rawBson": _base64(secret)}))
    assert goes["result"]["body"]["data"] == tag("rawBson", 1)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- secrets by their look

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mongodb://ada:p%40w@h1,h2/db", "mongodb://ada:[redacted:1]@h1,h2/db"),
        ("mongodb+srv://ada:p@w@h", "mongodb+srv://ada:[redacted:1]@h"),
        ("Bearer abc.def", "Bearer [redacted:1]"),
        ("sent Bearer s3cr3t twice", "sent Bearer [redacted:1] twice"),
        ("Basic dXNlcjpwdw==", "Basic [redacted:1]"),
        (f"is {JWT}, so", "is [redacted:1], so"),
        ("AKIAIOSFODNN7EXAMPLE", "[redacted:1]"),
        (f"a {PEM} b", "a [redacted:1] b"),
        ("ghp_" + "a1" * 18, "[redacted:1]"),
        ('dup key: { token: "abc" }', 'dup key: { token: "[redacted:1]" }'),
        (
            'E11000 index: token_1 dup key: { token: "a\\"b", n: 5 }',
            'E11000 index: token_1 dup key: { token: "[redacted:1]", n: 5 }',
        ),
        ("dup key: { token: ObjectId('64b7') }", "dup key: { token: [redacted:1] }"),
        ("token=abc&x=1", "token=[redacted:1]&x=1"),
        ("https://h/?x=1&api_key=a,b#c", "https://h/?x=1&api_key=[redacted:1]"),
        ("user%5Bpassword%5D=abc&x=1", "user%5Bpassword%5D=[redacted:1]&x=1"),
        ("user[password]=abc", "user[password]=[redacted:1]"),
        ('{"password":"a b","n":1}', '{"password":"[redacted:1]","n":1}'),
        ("{'password': 'a b', 'n': 1}", "{'password': '[redacted:1]', 'n': 1}"),
        ("Invalid API key: abc.", "Invalid API key: [redacted:1]"),
        ("Authorization: Digest a=b, c=d", "Authorization: [redacted:1]"),
        ("Cookie: a=b; c=d\nAccept: x", "Cookie: [redacted:1]\nAccept: x"),
        (
            '<input type=hidden name="csrf_token" value="abc">',
            '<input type=hidden name="csrf_token" value="[redacted:1]">',
        ),
        (
            "token=a password=b token=a",
            "token=[redacted:1] password=[redacted:2] token=[redacted:1]",
        ),
        (f"token={JWT}", "token=[redacted:1]"),
    ],
)
def test_a_secret_in_text_is_replaced_and_the_rest_stays(text: str, expected: str) -> None:
    one = redactor()
    assert one.redact_text(text) == expected
    given_event = event({"x": text})
    assert redactor().redact_event(given_event)["arguments"] == {"x": expected}
    assert one.needs_redaction(orjson.dumps(given_event))
    bindings: dict[str, Any] = {}
    assert bind(expected, text, bindings)
    assert substitute(expected, bindings) == text


@pytest.mark.parametrize(
    "text",
    [
        "The Basic plan, and the bearer of this",
        'Bearer realm="api", error="invalid_token"',
        "http://host:80/x@y and mail@host",
        "at 12:30: the message: hello",
        "password=null&token=&pin=0",
        "eyJ is how they begin",
        "tokenizer=x; passage: y; max_tokens=256",
    ],
)
def test_text_without_a_secret_stays(text: str) -> None:
    assert redactor().redact_text(text) == text


@pytest.mark.parametrize("secret", ['"password":"x"', '"a":"Bearer abc"', '"a":"m://u:p@h"'])
@pytest.mark.parametrize("at", [0, 9, 262_130, 262_144, 262_160, 524_280, 700_000])
def test_a_secret_is_found_wherever_it_stands_in_a_long_text(secret: str, at: int) -> None:
    before = '{"n":"' + "s" * max(0, at - 8) + '",'
    text = before + secret + ',"more":"' + "s" * 300_000 + '"}'
    assert redactor().needs_redaction(text.encode())
    assert not redactor().needs_redaction(text.replace(secret, '"b":1').encode())


def test_patterns_of_the_user_replace_their_group_or_the_whole_match() -> None:
    own = redactor(patterns=(re.compile(r"K-(\d+)"), re.compile(r"\bX\d{3}\b")))
    assert own.redact_text("K-123 or X456") == "K-[redacted:1] or [redacted:2]"
    assert own.needs_redaction(b"{}")


def test_a_text_that_looks_like_a_placeholder_is_not_confused_with_one() -> None:
    text = "my [redacted:7] and [redacted::7], token=abc"
    recorded = redactor().redact_text(text)
    assert recorded == "my [redacted::7] and [redacted:::7], token=[redacted:1]"
    assert find_placeholders(recorded.replace("[redacted:1]", "")) == []
    bindings: dict[str, Any] = {"7": "wrong"}
    assert bind(recorded, text, bindings)
    assert substitute(recorded, bindings) == text


# -- paths


def test_paths_of_the_user() -> None:
    own = redactor(
        paths=(
            "arguments.document.address.street",
            "result.body.data.*.account",
            "request.headers.X-Customer",
            "response.body.*.name",
        )
    )
    address = {"street": "Elm", "city": "Rome"}
    data = [{"account": "A"}, {"account": "B", "n": 2}]
    assert own.needs_redaction(b"{}")
    redacted = own.redact_event(event({"document": {"address": address}}, data))
    assert redacted["arguments"] == {"document": {"address": {**address, "street": "[redacted:1]"}}}
    assert redacted["result"]["body"]["data"] == [
        {"account": "[redacted:2]"},
        {"account": "[redacted:3]", "n": 2},
    ]
    dotted = own.redact_event(event({"document": {"address.street": "Elm"}}))
    assert dotted["arguments"] == {"document": {"address.street": "[redacted:1]"}}
    many = own.redact_event(event({"document": [{"address": [address]}]}))
    assert many["arguments"]["document"][0]["address"][0]["street"] == "[redacted:1]"
    request = own.redact_request({"headers": [["x-customer", "C"], ["accept", "D"]]})
    assert request == {"headers": [["x-customer", "[redacted:4]"], ["accept", "D"]]}
    response = own.redact_response({"body": {"user": {"name": "E"}, "name": "F"}})
    assert response == {"body": {"user": {"name": "[redacted:5]"}, "name": "F"}}


# -- requests and responses


def test_a_request_is_redacted_in_all_its_parts() -> None:
    request = {
        "method": "POST",
        "path": "/login",
        "query": "next=/&token=abc",
        "headers": [
            ["cookie", "a=b; sid=c"],
            ["x-api-key", "k1"],
            ["referer", "http://h/?token=abc"],
            ["accept", "text/html"],
        ],
        "body": {"user": ["ada"], "password": ["hunter2"]},
    }
    before = copy.deepcopy(request)
    assert redactor().redact_request(request) == {
        "method": "POST",
        "path": "/login",
        "query": "next=/&token=[redacted:3]",
        "headers": [
            ["cookie", "[redacted:1]"],
            ["x-api-key", "[redacted:2]"],
            ["referer", "http://h/?token=[redacted:3]"],
            ["accept", "text/html"],
        ],
        "body": {"user": ["ada"], "password": ["[redacted:4]"]},
    }
    assert request == before


def test_a_response_with_headers_as_a_dict_or_without_secrets() -> None:
    response = {"status": 200, "headers": {"Set-Cookie": "sid=a; Path=/"}, "body": "token: abc"}
    assert redactor().redact_response(response) == {
        "status": 200,
        "headers": {"Set-Cookie": "[redacted:1]"},
        "body": "token: [redacted:2]",
    }
    plain = {"status": 200, "headers": [["content-type", "text/html"]], "body": [1]}
    assert redactor().redact_response(plain) is plain
    assert redactor().redact_request(None) is None


# -- what the name does not stand above


def test_distinct_values_of_a_sensitive_key() -> None:
    redacted = redactor().redact_event(event({"key": "user.token"}, ["a", "b", None], "DISTINCT"))
    assert redacted["result"]["body"]["data"] == ["[redacted:1]", "[redacted:2]", None]
    plain = event({"key": "name"}, ["a"], "DISTINCT")
    assert redactor().redact_event(plain) is plain


def test_an_aggregation_that_gives_a_secret_another_name() -> None:
    pipeline = [
        {"$match": {"$expr": {"$eq": ["$token", "abc"]}}},
        {"$match": {"$expr": {"$regexMatch": {"input": "$token", "regex": "^ab"}}}},
        {"$group": {"_id": "$token", "all": {"$push": {"$toLower": "$password"}}}},
    ]
    data = [{"_id": "abc", "all": ["p"], "n": 2}]
    redacted = redactor().redact_event(event({"pipeline": pipeline}, data, "AGGREGATE"))
    assert redacted["arguments"]["pipeline"][:2] == [
        {"$match": {"$expr": {"$eq": ["$token", "[redacted:1]"]}}},
        {"$match": {"$expr": {"$regexMatch": {"input": "$token", "regex": "[redacted:2]"}}}},
    ]
    assert redacted["result"]["body"]["data"] == [
        {"_id": "[redacted:1]", "all": ["[redacted:3]"], "n": 2}
    ]


# -- numbers and labels


def test_placeholders_are_numbered_by_type_and_value() -> None:
    one = redactor()
    first = one.redact_event(event({"token": "5", "pin": 5, "cvv": {"$numberLong": "5"}}))
    second = one.redact_event(event({"password": "5", "uri": "x://u:5@h", "otp": "6"}))
    assert first["arguments"] == {
        "token": "[redacted:1]",
        "pin": tag("int", 2),
        "cvv": tag("long", 3),
    }
    assert second["arguments"] == {
        "password": "[redacted:1]",
        "uri": "x://u:[redacted:1]@h",
        "otp": "[redacted:4]",
    }
    assert list(one.labels) == ["1", "2", "3", "4"]
    assert all(re.fullmatch("[0-9a-f]{16}", label) for label in one.labels.values())


def test_labels_link_the_cassettes_of_one_run_and_no_others() -> None:
    one, other, foreign = redactor(), redactor(), Redactor(RedactionRules(), b"another run")
    one.redact_text("token=a")
    for cassette in (other, foreign):
        cassette.redact_text("token=b token=a")
    assert other.labels["2"] == one.labels["1"]
    assert one.labels["1"] not in foreign.labels.values()


def test_numbers_go_on_in_a_cassette_that_is_added_to() -> None:
    one = redactor()
    one.redact_text("token=a")
    added = Redactor(RedactionRules(), b"key of this run", one.labels)
    assert added.redact_text("token=a token=b") == "token=[redacted:1] token=[redacted:2]"
    assert list(one.labels) == ["1"]


# -- replay


def test_a_login_that_writes_a_password_and_reads_it_back() -> None:
    one = redactor()
    insert = one.redact_event(event({"document": {"user": "ada", "password": "hunter2"}}))
    find = one.redact_event(
        event({"filter": {"user": "ada"}}, {"user": "ada", "password": "hunter2"})
    )
    bindings: dict[str, Any] = {}
    live = {"document": {"user": "ada", "password": "other!"}}
    assert bind(insert["arguments"], live, bindings)
    assert substitute(find["result"]["body"]["data"], bindings) == live["document"]


@pytest.mark.parametrize(
    ("recorded", "live"),
    [
        ("[redacted:1]", "y"),
        ("[redacted:1]", 5),
        ("[redacted:1]", ""),
        ("a [redacted:2] c", "a b d"),
        ("a [redacted:2] c", "b c"),
        ("[redacted:2] and [redacted:2]", "a and b"),
        ("[redacted:2]x[redacted:3]", "ab"),
        (tag("int", 2), "5"),
        (tag("int", 2), True),
        (tag("int", 2), {"$numberLong": "5"}),
        (tag("int", 2), {"$escaped": {"$numberInt": "5"}}),
        (["[redacted:2]"], ["a", "b"]),
        ({"a": "[redacted:2]"}, {"b": "a"}),
        (["[redacted:2]", "b"], ["a", "c"]),
        (["[redacted:2]", 1], ["a", True]),
        ({"$escaped": {"$redacted": "x"}}, {"$escaped": {"$redacted": "y"}}),
    ],
)
def test_what_does_not_fit_is_refused_and_binds_nothing(recorded: Any, live: Any) -> None:
    bindings = {"1": "x"}
    assert not bind(recorded, live, bindings)
    assert bindings == {"1": "x"}


def test_several_placeholders_in_one_text() -> None:
    bindings = {"1": "x"}
    assert bind("a=[redacted:2]&b=[redacted:1]&c=[redacted:2].", "a=1&b=x&c=1.", bindings)
    assert bindings == {"1": "x", "2": "1"}


def test_placeholders_are_found_and_filled_in() -> None:
    recorded = {
        "a": ["x [redacted:1]", tag("int", 2)],
        "b": {"$escaped": {"$redacted": "[redacted:3]"}},
        "c": "[redacted::4]",
        "d": 5,
    }
    assert find_placeholders(recorded) == [
        (("a", 0), "x [redacted:1]"),
        (("a", 1), tag("int", 2)),
        (("b", "$escaped", "$redacted"), "[redacted:3]"),
    ]
    assert has_placeholders(orjson.dumps(recorded))
    assert not has_placeholders(b'{"a":"redacted"}')
    assert substitute(recorded, {"1": "y"}) == {
        "a": ["x y", 2],
        "b": {"$escaped": {"$redacted": "[redacted:3]"}},
        "c": "[redacted:4]",
        "d": 5,
    }
    plain = {"a": ["b", {"c": 1}]}
    assert substitute(plain, {"1": "y"}) is plain


@pytest.mark.parametrize(
    "held", ["x", {}, {"type": "int"}, {"type": "int", "n": 0}, {"type": "a", "n": 1}]
)
def test_a_malformed_placeholder_is_a_clear_error(held: Any) -> None:
    with pytest.raises(ValueError, match="malformed placeholder"):
        placeholder_value({"$redacted": held})


# -- properties

SECRET = "Zq9Zx7Kw"
"""No part of it occurs in what is generated around it."""

plain_keys = st.sampled_from(
    ["name", "message", "tokenizer", "a", "user", "items", "x y", "\u00fc"]
)
plain_leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(-5, 5000), st.text('abc xyz\n"\\{}\u00e9', max_size=8)),
    st.sampled_from([{"$oid": "0" * 24}, {"$numberLong": "7"}]),
)
documents = st.recursive(
    plain_leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_keys, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def sensitive_names(draw: st.DrawFn) -> str:
    words = draw(st.sampled_from(DEFAULT_NAMES)).split()
    style = draw(
        st.sampled_from(["snake", "kebab", "camel", "Pascal", "UPPER", "glued", "space", "dot"])
    )
    prefix = draw(st.sampled_from(["", "user", "my"])) if style != "glued" else ""
    parts = [*([prefix] if prefix else []), *words]
    ending = draw(st.sampled_from(["", "", "hash", "salt"]))
    parts += [ending] if ending else []
    capital = [part.capitalize() for part in parts]
    made = {
        "snake": "_".join(parts),
        "kebab": "-".join(capital),
        "camel": parts[0] + "".join(capital[1:]),
        "Pascal": "".join(capital),
        "UPPER": "_".join(parts).upper(),
        "glued": "".join(parts),
        "space": " ".join(parts),
        "dot": ".".join((*("a", "0"), "_".join(parts))),
    }[style]
    return made + draw(st.sampled_from(["", "", "2", "_1"]))


secret_texts = st.sampled_from(
    [
        f"mongodb://ada:{SECRET}@host/db",
        f"see mysql://ada:{quote(SECRET)}@host, and so on",
        f"Bearer {SECRET}",
        f"\tthe header was Bearer\n{SECRET}",
        f"eyJ{SECRET}.{SECRET}.{SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    ]
)
assignments = st.tuples(
    sensitive_names(),
    st.sampled_from(['{}: "{}"', "{}={}", "{}: {}", "\n{}={}&x=1", '{{"{}":"{}"}}']),
).map(lambda pair: pair[1].format(pair[0], SECRET))


@st.composite
def with_secret(draw: st.DrawFn) -> Any:
    """A document with a secret in it, under a sensitive name or in a text, at any depth."""
    planted: Any
    if draw(st.booleans()):
        leaf = st.sampled_from([SECRET, [SECRET], {"$in": ["a", SECRET]}, {"x": {"y": SECRET}}])
        planted = {draw(sensitive_names()): draw(leaf)}
    else:
        planted = draw(secret_texts | assignments)
    for _ in range(draw(st.integers(0, 6))):
        around = draw(documents)
        if draw(st.booleans()):
            planted = [around, planted]
        else:
            planted = {draw(plain_keys): planted, "z": around}
    return event({"document": planted}, planted)


@given(with_secret())
def test_a_planted_secret_is_never_written(planted: Any) -> None:
    one = redactor()
    before = copy.deepcopy(planted)
    text = orjson.dumps(planted)
    assert one.needs_redaction(text)
    recorded = one.redact_event(planted)
    assert SECRET.encode() not in orjson.dumps(recorded)
    assert planted == before
    bindings: dict[str, Any] = {}
    assert bind(recorded, planted, bindings)
    assert substitute(recorded, bindings) == planted


@given(documents)
def test_a_document_without_secrets_is_the_same_object(document: Any) -> None:
    given_event = event({"document": document}, document)
    assert redactor().redact_event(given_event) is given_event


anything = st.recursive(
    st.one_of(
        *(st.none(), st.integers(-(2**60), 2**60), st.text(max_size=12)),
        st.text('[redacted:17]=tokenpiTOKEN \n"\\%5B', max_size=30),
        *(secret_texts, assignments),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.text("tokenpiKEYapi_ .%5B\n", max_size=9), inner)
        | st.dictionaries(sensitive_names(), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(anything)
@example({"a": "\ntoken=x"})
@example({"a": "api%5Fkey=x"})
@example({"a\ntoken": "x"})
@example({"\\token": "x"})
def test_the_quick_look_never_overlooks_anything(value: Any) -> None:
    one = redactor()
    given_event = event({"document": value}, value)
    recorded = one.redact_event(given_event)
    if recorded is not given_event:
        assert one.needs_redaction(orjson.dumps(given_event))
    bindings: dict[str, Any] = {}
    assert substitute(recorded, bindings) is not None
    if bind(recorded, given_event, bindings):
        assert substitute(recorded, bindings) == given_event


def test_documents_may_be_as_deep_as_the_codec_makes_them() -> None:
    deep: Any = {"token": "abc"}
    for _ in range(200):
        deep = {"a": deep}
    recorded = redactor().redact_event(event({"document": deep}))
    assert b"abc" not in orjson.dumps(recorded)
    assert find_placeholders(recorded)
    assert bind(recorded, event({"document": deep}), {})
    assert substitute(recorded, {"1": "abc"}) == event({"document": deep})


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 100_000, "a." * 50_000, "x y " * 25_000, "://" * 30_000, "token=[" * 10_000),
        *("eyJ" * 30_000, '"token": "' * 10_000, "<input " * 10_000, "[redacted:" * 10_000),
    ],
)
def test_long_texts_take_no_more_than_linear_time(text: str) -> None:
    start = time.process_time()
    redactor().redact_text(text)
    assert time.process_time() - start < 2
