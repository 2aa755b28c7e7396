"""Pages for operators, on the admin port: what the admin API says, to look at. Imported only where `admin.ui`
is true."""
