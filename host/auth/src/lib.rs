//! Who is asking and may they: authenticators, RBAC, audit events. No HTTP.
