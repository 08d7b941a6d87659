//! What a node says of itself: for `status`, for Prometheus.

use dagger_client::api::NodeStatus;

use crate::handle::Shared;

pub(crate) fn node_status(_shared: &Shared) -> NodeStatus {
    unimplemented!()
}

pub(crate) fn metrics_text(_shared: &Shared) -> String {
    unimplemented!()
}
