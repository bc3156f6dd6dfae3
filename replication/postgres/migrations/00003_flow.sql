-- +goose Up
-- What the reports of a line tell of its pace (shortline.Flow), and in the feed what is learned from it.
ALTER TABLE shortline.queues
	ADD COLUMN served  bigint NOT NULL DEFAULT 0,
	ADD COLUMN busy_ms bigint NOT NULL DEFAULT 0;
ALTER TABLE shortline.changes ADD COLUMN learned_s double precision; -- QueueSet; NULL: not known
