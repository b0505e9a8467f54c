//! Certificate authority, leaf certificates, SPIFFE verification and TLS configurations.
