-- A partition a day for requests and answers. Until now there was the default partition alone: the keys are random,
-- so every insert went to a page of its own of an index over the whole history.

-- What there is already keeps its partition, up to its newest day; the new default is empty, so a new day needn't
-- look through it.
DO $$
DECLARE
    parent text;
    newest date;
BEGIN
    FOREACH parent IN ARRAY ARRAY['authorization_requests', 'authorization_answers'] LOOP
        EXECUTE format('SELECT max(business_date) FROM %I', parent || '_else') INTO newest;
        CONTINUE WHEN newest IS NULL;
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, parent || '_else');
        EXECUTE format('ALTER TABLE %I RENAME TO %I', parent || '_else', parent || '_before');
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
                       parent, parent || '_before', newest + 1);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', parent || '_else', parent);
    END LOOP;
END $$;

-- Make the days from `first` to `last` that aren't there; how many partitions were made. A day that has begun
-- elsewhere ends there. Attached rather than created in place: that would stop all payments for a moment.
CREATE FUNCTION make_request_days(first date, last date) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    made   integer := 0;
    parent text;
    child  text;
    day    date;
    begun  boolean;
BEGIN
    IF last - first > 400 THEN
        RAISE EXCEPTION 'more than 400 days at once' USING ERRCODE = '22023';
    END IF;
    FOR day IN SELECT generate_series(first, last, '1 day')::date LOOP
        FOREACH parent IN ARRAY ARRAY['authorization_requests', 'authorization_answers'] LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE business_date = $1)', parent || '_else')
                INTO begun USING day;
            CONTINUE WHEN begun;
            BEGIN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                               parent, child, day, day + 1);
                made := made + 1;
            EXCEPTION
                -- Of a day before this migration; or it has begun this very moment.
                WHEN invalid_object_definition OR check_violation OR duplicate_table THEN NULL;
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION make_request_days FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_request_days TO countersign_app;

SELECT make_request_days(current_date - 1, current_date + 7);
