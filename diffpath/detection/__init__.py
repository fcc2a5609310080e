"""From features to anomaly scores: densities, calibration, rules, evaluation; free of FiftyOne and torch."""
