"""Pages for operators, on the admin port: a view of the admin API. Imported only if `admin.ui` is true."""
