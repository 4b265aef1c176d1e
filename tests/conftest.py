"""What all tests share: hypothesis does not fail a test for being slow on a busy machine."""

from hypothesis import settings

settings.register_profile("streamgen", deadline=None)
settings.load_profile("streamgen")
