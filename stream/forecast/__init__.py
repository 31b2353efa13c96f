"""The live forecaster: sessions in, hours of each server, forecasts out. Pure, as the rest of the stream's core."""
