"""This folder is a package, so that its fixtures and the loop of Playwright end with its tests."""
