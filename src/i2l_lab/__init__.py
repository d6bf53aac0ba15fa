"""How the default models of i2l-meshnet were made: synthetic people, lifting, calibration."""
