-- Everything lies in the schema "shortline", which exists when this runs. A migration is never changed once released.
--
-- Identifiers are compared byte by byte (COLLATE "C"), as Go does: the order of snapshots and of locks is one.

-- +goose Up
-- One row. A commit reads the epoch under a shared advisory lock; whoever changes it takes that lock exclusively.
CREATE TABLE shortline.control (
	one        boolean PRIMARY KEY DEFAULT true CHECK (one),
	deployment uuid NOT NULL DEFAULT gen_random_uuid(), -- tells a standby of this database from one of another
	epoch      bigint NOT NULL CHECK (epoch > 0),
	pruned_xid xid8 NOT NULL DEFAULT '0', -- the last change that was pruned; 0, 0: none
	pruned_id  bigint NOT NULL DEFAULT 0,
	created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shortline.stores (
	id      text COLLATE "C" PRIMARY KEY,
	rev     bigint NOT NULL,
	deleted boolean NOT NULL, -- a tombstone, which keeps rev
	cell    bigint,           -- H3 cell of resolution 7; NULL for a tombstone
	body    text NOT NULL     -- the store as JSON, byte for byte as it was written; '' for a tombstone
);
CREATE INDEX stores_cell ON shortline.stores (cell) WHERE cell IS NOT NULL;

-- One row for each row of stores, always. Locking it locks the store, so that an update of a queue touches this table and
-- no other. Nothing but the id is indexed and pages keep room, so that updates stay on their page (HOT).
CREATE TABLE shortline.queues (
	store       text COLLATE "C" PRIMARY KEY,
	live        boolean NOT NULL,          -- the store exists
	service_s   double precision NOT NULL, -- as in the store's body, for answers to queue updates
	rev         bigint NOT NULL,           -- 0: never reported
	length      integer,                   -- NULL: never reported, or a tombstone
	observed_at timestamptz,
	-- The rollup of the newest hour that has samples; older hours are in rollups.
	hour        timestamptz NOT NULL,
	samples     bigint NOT NULL,
	sum         bigint NOT NULL,
	sumsq       bigint NOT NULL,
	min         bigint NOT NULL,
	max         bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE shortline.rollups (
	store   text COLLATE "C" NOT NULL,
	hour    timestamptz NOT NULL,
	samples bigint NOT NULL,
	sum     bigint NOT NULL,
	sumsq   bigint NOT NULL,
	min     bigint NOT NULL,
	max     bigint NOT NULL,
	PRIMARY KEY (store, hour)
);

-- id counts the changes of one transaction from 1, so that no sequence can be behind after a failover.
CREATE TABLE shortline.changes (
	xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
	id           bigint NOT NULL,
	epoch        bigint NOT NULL,
	committed_at timestamptz NOT NULL,
	kind         smallint NOT NULL, -- shortline.ChangeKind
	rev          bigint NOT NULL,
	subject      text NOT NULL,
	length       integer,     -- QueueSet
	observed_at  timestamptz, -- QueueSet
	queue_rev    bigint,      -- StoreDeleted of a store that ever had a queue: the rev of the queue's tombstone
	hash         bytea,       -- KeyPut
	body         text,        -- StorePut, KeyPut: JSON
	PRIMARY KEY (xid, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2);

-- Scopes and keys are bytes, because clients choose them.
CREATE TABLE shortline.idempotency (
	scope     bytea NOT NULL,
	key       bytea NOT NULL,
	body_hash bytea NOT NULL,
	answer    text NOT NULL, -- the items of the result as JSON
	at        timestamptz NOT NULL,
	expires   timestamptz NOT NULL,
	PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_expires ON shortline.idempotency (expires);

CREATE TABLE shortline.keys (
	id   text COLLATE "C" PRIMARY KEY,
	rev  bigint NOT NULL,
	hash bytea NOT NULL,
	body text NOT NULL -- the key as JSON, which has no hash
);

-- Commits are dated by the clock of who commits, and so is this.
INSERT INTO shortline.control (epoch) VALUES (1);
INSERT INTO shortline.changes (id, epoch, committed_at, kind, rev, subject) VALUES (1, 1, current_setting('shortline.now')::timestamptz, 5, 1, '');
