-- The roles of the database agent (`shortline db`), with the least rights that it needs. A database that the agent makes has
-- them. For one that is there already run it once, as a superuser, in the database made for Shortline, after the grants.sql
-- of the store:
--
--   psql -d shortline -v ON_ERROR_STOP=1 -f grants.sql
--   psql -d shortline -c '\password shortline_replicator'    (the same as --db-password in every region)
--
-- Neither is a superuser:
--   shortline_agent       commands its own server through the unix socket; give it no password
--   shortline_replicator  streams, copies and rewinds from another region's server. Whoever has its password can read all
--                         files of that server: a copy is made of them.
--
-- pg_hba.conf has to let the agent's user in through the socket as shortline_agent and shortline_writer, and shortline_replicator
-- in from the other regions, to the database and to "replication".

DO $$ BEGIN
	CREATE ROLE shortline_agent LOGIN REPLICATION;
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN
	CREATE ROLE shortline_replicator LOGIN REPLICATION;
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

-- Sees settings and statistics, ends sessions that could write past a fence, makes a checkpoint before a rewind.
GRANT pg_monitor, pg_signal_backend, pg_checkpoint TO shortline_agent;
GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf(), pg_wal_replay_resume() TO shortline_agent;
GRANT ALTER SYSTEM ON PARAMETER primary_conninfo, primary_slot_name, synchronous_standby_names, default_transaction_read_only TO shortline_agent;

-- What pg_rewind reads from its source, and the checkpoint that makes the source ready for it.
GRANT pg_checkpoint TO shortline_replicator;
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
	pg_read_binary_file(text, bigint, bigint, boolean) TO shortline_replicator;

-- Both read the epoch and how epochs began; the agent reads what was lost, too.
DO $$ BEGIN
	GRANT shortline_reader TO shortline_agent, shortline_replicator;
	GRANT shortline_writer TO shortline_agent;
EXCEPTION WHEN undefined_object THEN NULL; END $$; -- a database without Shortline's tables
