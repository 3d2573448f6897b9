//! From Services and EndpointSlices to packet rules, and the cluster's DNS.
