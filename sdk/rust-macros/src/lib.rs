//! Attribute macros that export a decision as a component.
