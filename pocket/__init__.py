"""How Tailor's embedded bases and data sets are made: an invented world, its texts, and two small pre-trainings."""
