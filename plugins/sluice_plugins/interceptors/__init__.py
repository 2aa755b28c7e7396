"""The interceptors that come along (`sluice.proxy.interceptors`), one file each, and its entry point."""
