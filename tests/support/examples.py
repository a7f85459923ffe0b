"""How many examples hypothesis tries: a fifth of them every day, all of them under its profile `thorough`."""

from hypothesis import settings

ALL = 100  # examples of the profile `thorough`, for a test that doesn't say how many it wants
EVERY_DAY = ALL // 5
LEAST = 10


def examples(count: int) -> settings:
    """The settings of a test that takes this many examples to be thorough."""
    return settings(max_examples=max(LEAST, count * settings().max_examples // ALL))
