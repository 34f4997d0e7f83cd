//! Metrics of the daemons: a table says which series there are, a registry keeps them and shows them to scrapers.
//!
//! Each daemon declares one table (`metric_table!`). Never makes a series that no table lists: the only handles by
//! which a registry counts are those that the table makes.

mod names;
mod registry;
mod table;

pub use names::snake_rpc;
pub use registry::Registry;
pub use table::{Call, Counter, Gauge, Kind, Methods, Metric, Origin, Sample, page, shown};
