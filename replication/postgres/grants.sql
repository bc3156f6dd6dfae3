-- The least rights that Shortline needs. Run it once, as a superuser, in the database made for Shortline and before the
-- first start:
--
--   createdb shortline
--   psql -d shortline -v ON_ERROR_STOP=1 -f grants.sql
--   psql -d shortline -c '\password shortline_owner'    (and the same for shortline_writer and shortline_reader)
--
-- None of the three is a superuser:
--   shortline_owner   makes and migrates the tables; only Migrate and `Config.Owner` need it
--   shortline_writer  commits and prunes, on the primary
--   shortline_reader  reads snapshots and the feed, on a standby of the region

CREATE ROLE shortline_owner LOGIN;
CREATE ROLE shortline_writer LOGIN;
CREATE ROLE shortline_reader LOGIN;

CREATE SCHEMA shortline AUTHORIZATION shortline_owner;
GRANT USAGE ON SCHEMA shortline TO shortline_writer, shortline_reader;

-- What the owner makes from now on is open to both, as far as each needs it. Nobody but the owner may TRUNCATE or drop.
ALTER DEFAULT PRIVILEGES FOR ROLE shortline_owner IN SCHEMA shortline
	GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO shortline_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE shortline_owner IN SCHEMA shortline
	GRANT SELECT ON TABLES TO shortline_reader;
