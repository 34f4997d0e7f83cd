//! The wire: messages, clients and servers generated from `spec/`, and their conversion from and to the domain.
//!
//! Never decides anything: a conversion says what the bytes mean or why they mean nothing. Only the edges of the
//! server, agent and command line use this crate; cores never see a wire type.

#[allow(missing_debug_implementations, clippy::all, clippy::pedantic, rustdoc::all)]
mod generated {
    pub mod workload {
        include!("gen/workload.rs");
    }
    pub mod descriptors {
        include!("gen/descriptors.rs");
    }
    pub mod spire {
        pub mod agent {
            pub mod debug {
                pub mod v1 {
                    include!("gen/spire.agent.debug.v1.rs");
                }
            }
        }
        pub mod api {
            pub mod types {
                include!("gen/spire.api.types.rs");
            }
            pub mod agent {
                pub mod logger {
                    pub mod v1 {
                        include!("gen/spire.api.agent.logger.v1.rs");
                    }
                }
            }
            pub mod server {
                pub mod agent {
                    pub mod v1 {
                        include!("gen/spire.api.server.agent.v1.rs");
                    }
                }
                pub mod bundle {
                    pub mod v1 {
                        include!("gen/spire.api.server.bundle.v1.rs");
                    }
                }
                pub mod debug {
                    pub mod v1 {
                        include!("gen/spire.api.server.debug.v1.rs");
                    }
                }
                pub mod entry {
                    pub mod v1 {
                        include!("gen/spire.api.server.entry.v1.rs");
                    }
                }
                pub mod localauthority {
                    pub mod v1 {
                        include!("gen/spire.api.server.localauthority.v1.rs");
                    }
                }
                pub mod logger {
                    pub mod v1 {
                        include!("gen/spire.api.server.logger.v1.rs");
                    }
                }
                pub mod svid {
                    pub mod v1 {
                        include!("gen/spire.api.server.svid.v1.rs");
                    }
                }
                pub mod trustdomain {
                    pub mod v1 {
                        include!("gen/spire.api.server.trustdomain.v1.rs");
                    }
                }
            }
        }
    }
    pub mod avouch {
        pub mod gate {
            pub mod v1 {
                include!("gen/avouch.gate.v1.rs");
            }
        }
        pub mod governance {
            pub mod v1 {
                include!("gen/avouch.governance.v1.rs");
            }
        }
        pub mod records {
            pub mod v1 {
                include!("gen/avouch.records.v1.rs");
            }
        }
        pub mod run {
            pub mod v1 {
                include!("gen/avouch.run.v1.rs");
            }
        }
        pub mod requests {
            pub mod v1 {
                include!("gen/avouch.requests.v1.rs");
            }
        }
        pub mod rules {
            pub mod v1 {
                include!("gen/avouch.rules.v1.rs");
            }
        }
        pub mod sealed {
            pub mod v1 {
                include!("gen/avouch.sealed.v1.rs");
            }
        }
        pub mod task {
            pub mod v1 {
                include!("gen/avouch.task.v1.rs");
            }
        }
        pub mod watch {
            pub mod v1 {
                include!("gen/avouch.watch.v1.rs");
            }
        }
    }
}

pub mod convert;
mod redact;
pub mod revision;

pub use generated::avouch::gate::v1 as gate_v1;
pub use generated::avouch::governance::v1 as governance_v1;
pub use generated::avouch::records::v1 as records_v1;
pub use generated::avouch::requests::v1 as requests_v1;
pub use generated::avouch::rules::v1 as rules_v1;
pub use generated::avouch::run::v1 as run_v1;
pub use generated::avouch::sealed::v1 as sealed_v1;
pub use generated::avouch::task::v1 as task_v1;
pub use generated::avouch::watch::v1 as watch_v1;
pub use generated::descriptors::WORKLOAD_FILE_DESCRIPTOR_SET;
pub use generated::spire::agent::debug::v1 as agent_debug_v1;
pub use generated::spire::api::agent::logger::v1 as agent_logger_v1;
pub use generated::spire::api::server::agent::v1 as agent_v1;
pub use generated::spire::api::server::bundle::v1 as bundle_v1;
pub use generated::spire::api::server::debug::v1 as debug_v1;
pub use generated::spire::api::server::entry::v1 as entry_v1;
pub use generated::spire::api::server::localauthority::v1 as localauthority_v1;
pub use generated::spire::api::server::logger::v1 as logger_v1;
pub use generated::spire::api::server::svid::v1 as svid_v1;
pub use generated::spire::api::server::trustdomain::v1 as trustdomain_v1;
pub use generated::spire::api::types;
pub use generated::workload;
