"""Interceptors that are part of Sluice (`sluice.proxy.interceptors`): one file and one entry point each."""
