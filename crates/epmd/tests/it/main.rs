//! Client and daemon against each other, against OTP's, and against stock VMs.
