"""What all tests share."""

from hypothesis import settings

# The same examples in every run, and no limit on the time of one: the machine may be busy.
settings.register_profile("repository", deadline=None, derandomize=True, database=None)
settings.load_profile("repository")
