-- +goose Up
-- One row for each epoch that began in this history. fork is the log position up to which the history of the epoch before
-- belongs to this one; NULL: all of it does.
CREATE TABLE shortline.epochs (
	epoch    bigint PRIMARY KEY,
	fork     pg_lsn,
	xid      xid8 NOT NULL DEFAULT pg_current_xact_id(), -- the transaction that began it
	began_at timestamptz NOT NULL
);
INSERT INTO shortline.epochs (epoch, began_at) SELECT epoch, current_setting('shortline.now')::timestamptz FROM shortline.control;
