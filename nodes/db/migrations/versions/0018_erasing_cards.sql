-- What an erasure also takes out of rows that never change otherwise: from chips' records the card's token (its
-- pseudonym takes its place), from approvals in an issuer's place and online counters the card number's keyed hash.
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['chip_records {card_token}', 'stand_ins {card_lookup}',
                             'online_counters {card_lookup}'] LOOP
        EXECUTE format('DROP TRIGGER %I ON %I', split_part(t, ' ', 1) || '_unchanging', split_part(t, ' ', 1));
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change_but_erasure(%L)',
                       split_part(t, ' ', 1) || '_unchanging', split_part(t, ' ', 1), split_part(t, ' ', 2));
    END LOOP;
END $$;
