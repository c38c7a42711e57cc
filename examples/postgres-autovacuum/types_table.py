# SPDX-License-Identifier: MIT
"""A table with every class of types that PostgreSQL computes statistics for.

Its rows are fewer than a sample has, so every ANALYZE sees the same.
"""

ROWS = 4000

# Name, type, and an expression over i, the row's number.
COLUMNS = (
    ("b", "boolean", "i % 3 = 0"),
    ("i2", "smallint", "i % 100"),
    ("i4", "integer", "i"),
    ("i8", "bigint", "(i * 7919) % 1000 * 1000000000::bigint"),
    ("f4", "real", "CASE WHEN i % 500 = 0 THEN 'NaN'::real ELSE i / 7.0 END"),
    ("f8", "double precision", "sin(i) * 1e10"),
    ("n", "numeric", "(i % 300) * 1.0001 + (i % 7) / 3.0"),
    ("m", "money", "(i % 50)::text::money"),
    ("t", "text", "md5((i % 700)::text)"),
    ("tc", 'text COLLATE "C"', "md5((i % 70)::text)"),
    ("vc", "varchar(20)", "left(md5(i::text), i % 20)"),
    ("bc", "char(10)", "left(md5((i % 40)::text), 5)"),
    ("nm", "name", "'name_' || i % 30"),
    ("qc", '"char"', "chr(65 + i % 26)"),
    ("by", "bytea", "decode(md5((i % 90)::text), 'hex')"),
    ("toasted", "text", "CASE WHEN i % 10 = 0 THEN repeat(md5((i % 200)::text), 200) ELSE i::text END"),
    ("plain_long", "text", "CASE WHEN i % 50 = 0 THEN (SELECT string_agg(md5((i % 400 + g)::text), '') "
                           "FROM generate_series(1, 90) g) ELSE (i % 9)::text END"),
    ("compressed", "text", "repeat('compress ' || i % 20, 30)"),
    ("d", "date", "date '2020-01-01' + i % 400"),
    ("ti", "time", "time '00:00' + i * interval '1 second'"),
    ("tz", "timetz", "timetz '00:00+02' + (i % 100) * interval '1 minute'"),
    ("ts", "timestamp", "timestamp '2020-01-01' + i * interval '1 hour'"),
    ("tstz", "timestamptz", "timestamptz '2020-01-01 00:00+00' + (i % 300) * interval '1 day'"),
    ("iv", "interval", "(i % 60) * interval '1 day 2 hours'"),
    ("u", "uuid", "md5((i % 500)::text)::uuid"),
    ("ip", "inet", "'10.0.0.0'::inet + i % 600"),
    ("cd", "cidr", "('10.' || i % 200 || '.0.0/16')::cidr"),
    ("mac", "macaddr", "('08:00:2b:01:02:' || lpad(to_hex(i % 256), 2, '0'))::macaddr"),
    ("bt", "bit(8)", "(i % 200)::bit(8)"),
    ("vb", "varbit", "(i % 100)::bit(12)::varbit"),
    ("p", "point", "point(i % 100, i)"),
    ("bx", "box", "box(point(0, 0), point(i % 50, i))"),
    ("ci", "circle", "circle(point(0, 0), i % 30)"),
    ("pa", "path", "('((0,0),(1,' || i % 9 || '))')::path"),
    ("po", "polygon", "('((0,0),(1,' || i % 9 || '),(2,2))')::polygon"),
    ("e", "mood", "(ARRAY['sad', 'ok', 'happy'])[1 + i % 3]::mood"),
    ("dom", "positive", "i % 77 + 1"),
    ("comp", "pair", "ROW(i % 10, 'x' || i % 4)::pair"),
    ("ai", "int[]", "ARRAY[i % 5, i % 11, i % 3]"),
    ("at", "text[]", "ARRAY['a' || i % 20, 'b' || i % 7, NULL]"),
    ("ad", "date[]", "ARRAY[date '2020-01-01' + i % 30]"),
    ("a2", "int[]", "ARRAY[[i % 4, 1], [2, i % 6]]"),
    ("ir", "int4range", "int4range(i % 100, i % 100 + i % 17)"),
    ("nr", "numrange", "CASE WHEN i % 40 = 0 THEN 'empty' WHEN i % 41 = 0 THEN '(,5]' "
                       "ELSE numrange((i % 100) / 3.0, 100 + (i % 37) * 1.5) END"),
    ("tr", "tstzrange", "tstzrange(timestamptz '2020-01-01 00:00+00' + (i % 200) * interval '1 day', NULL)"),
    ("mr", "int4multirange", "int4multirange(int4range(i % 20, i % 20 + 5), int4range(100, 110 + i % 13))"),
    ("tv", "tsvector", "to_tsvector('simple', 'the quick fox number ' || i % 50 || ' jumps ' || i % 9)"),
    ("tvlong", "tsvector", "CASE WHEN i % 100 = 0 THEN (SELECT to_tsvector('simple', string_agg(md5((i + g)::text), "
                           "' ')) FROM generate_series(1, 120) g) ELSE to_tsvector('simple', 'short ' || i % 8) END"),
    ("tq", "tsquery", "to_tsquery('simple', 'w' || i % 30)"),
    ("j", "json", "json_build_object('a', i % 10)"),
    ("jb", "jsonb", "jsonb_build_object('a', i % 10, 'b', ARRAY[i % 3, 5])"),
    ("x", "xid", "(i % 50)::text::xid"),
    ("o", "oid", "i % 60"),
    ("rc", "regclass", "CASE WHEN i % 2 = 0 THEN 'pg_class' ELSE 'pg_type' END::regclass"),
    ("ls", "pg_lsn", "('0/' || to_hex(i % 200))::pg_lsn"),
    ("allnull", "int", "NULL"),
    ("mostlynull", "text", "CASE WHEN i % 100 = 0 THEN 'v' || i % 3 END"),
    ("one", "int", "42"),
    ("distinct_set", "int", "i % 1000"),
)

CREATE = f"""
CREATE TYPE mood AS ENUM ('sad', 'happy');
ALTER TYPE mood ADD VALUE 'ok' BEFORE 'happy';
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE every_type ({", ".join(f"{name} {type}" for name, type, _ in COLUMNS)});
ALTER TABLE every_type ALTER plain_long SET STORAGE EXTERNAL, ALTER distinct_set SET (n_distinct = -0.5);
INSERT INTO every_type SELECT {", ".join(f"({value})" for _, _, value in COLUMNS)}
    FROM generate_series(1, {ROWS}) i;
ALTER TABLE every_type ADD added int DEFAULT 5, ADD dropped int;
ALTER TABLE every_type DROP dropped;
CREATE INDEX every_type_expression ON every_type (lower(t), (i4 / 10), (jb ->> 'a'));
CREATE INDEX every_type_partial ON every_type ((n * 2)) WHERE i4 < 1000;
CREATE STATISTICS every_type_extended (ndistinct, dependencies, mcv) ON i2, e FROM every_type;
CREATE STATISTICS every_type_expressions ON (i4 % 10), (upper(t)) FROM every_type;
"""
