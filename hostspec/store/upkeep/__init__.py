"""Looking after a store: checks and repairs, garbage, deduplication, how much space is used."""
