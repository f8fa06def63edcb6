"""The evaluation of one candidate: device pool, measurement cache, untrained proxy."""
