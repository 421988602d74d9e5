"""The domain: every rule and every call to Redis. Knows neither HTTP nor SQL."""
