-- What the clock showed when the newest entry came.
ALTER TABLE ds_channels ADD COLUMN head_clock INTEGER NOT NULL DEFAULT 0;
UPDATE ds_channels SET head_clock = head_time;
