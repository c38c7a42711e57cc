-- SPDX-License-Identifier: MIT
-- A text in all but its statistics: those are computed by the extension.
CREATE TYPE fragile;
CREATE FUNCTION fragile_in(cstring) RETURNS fragile AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION fragile_out(fragile) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION fragile_analyze(internal) RETURNS bool AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
CREATE TYPE fragile (INPUT = fragile_in, OUTPUT = fragile_out, ANALYZE = fragile_analyze, LIKE = text, COLLATABLE = true);

CREATE FUNCTION fragile_eq(fragile, fragile) RETURNS bool AS 'texteq' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION fragile_lt(fragile, fragile) RETURNS bool AS 'text_lt' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION fragile_le(fragile, fragile) RETURNS bool AS 'text_le' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION fragile_gt(fragile, fragile) RETURNS bool AS 'text_gt' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION fragile_ge(fragile, fragile) RETURNS bool AS 'text_ge' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION fragile_cmp(fragile, fragile) RETURNS int AS 'bttextcmp' LANGUAGE internal IMMUTABLE STRICT;
CREATE OPERATOR = (LEFTARG = fragile, RIGHTARG = fragile, FUNCTION = fragile_eq, COMMUTATOR = =, RESTRICT = eqsel);
CREATE OPERATOR < (LEFTARG = fragile, RIGHTARG = fragile, FUNCTION = fragile_lt, RESTRICT = scalarltsel);
CREATE OPERATOR <= (LEFTARG = fragile, RIGHTARG = fragile, FUNCTION = fragile_le, RESTRICT = scalarlesel);
CREATE OPERATOR > (LEFTARG = fragile, RIGHTARG = fragile, FUNCTION = fragile_gt, RESTRICT = scalargtsel);
CREATE OPERATOR >= (LEFTARG = fragile, RIGHTARG = fragile, FUNCTION = fragile_ge, RESTRICT = scalargesel);
CREATE OPERATOR CLASS fragile_ops DEFAULT FOR TYPE fragile USING btree AS
	OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 fragile_cmp(fragile, fragile);
CREATE CAST (text AS fragile) WITHOUT FUNCTION;

CREATE FUNCTION fragile_seed(bigint) RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
