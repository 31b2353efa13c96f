"""How much load each server will have: features, models and plans. Sessions and hours in columns in, classes out."""
