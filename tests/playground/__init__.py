"""A package, unlike its neighbours, so that its fixtures and the loop of Playwright end with its tests."""
