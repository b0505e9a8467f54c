//! Words of the mesh: names, services, endpoints, intentions, SPIFFE ids, and the ServiceMesh trait.
