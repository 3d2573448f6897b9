//! The HTTP door: discovery, verbs, watch, tables, filters; `Failure` becomes `Status` here.
