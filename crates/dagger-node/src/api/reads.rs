//! Reads of the ledger and of the node. Each is one view of one moment: the ledger is locked once.

use super::{Api, ApiError, proposal_views, views};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use dagger_client::api::{
    AccountView, CheckView, ErrorBody, ExplanationView, ImageView, MachineView, NodeStatus,
    OperatorView, ProposalView, VmView,
};
use dagger_ledger::{Code, Ledger, Parameters, VmRecord};
use serde::Deserialize;
use std::time::{Duration, Instant};
use utoipa::IntoParams;

/// How long the node's look at itself is told again.
const EXAMINED_FOR: Duration = Duration::from_secs(1);

type Answer<T> = Result<Json<T>, ApiError>;

/// How this node is.
#[utoipa::path(get, path = "/v1/status", tag = "node", responses((status = 200, body = NodeStatus)))]
pub(super) async fn status(State(api): State<Api>) -> Json<NodeStatus> {
    Json(api.node.status())
}

/// The node's look at itself and its surroundings: what is well, what is not, what to do.
#[utoipa::path(get, path = "/v1/checks", tag = "node", responses((status = 200, body = Vec<CheckView>)))]
pub(super) async fn checks(State(api): State<Api>) -> Answer<Vec<CheckView>> {
    // One look at a time, and not more often than that: it walks the data directory, and anybody may ask.
    let mut last = api.examined.lock().await;
    if let Some((at, checks)) = &*last
        && at.elapsed() < EXAMINED_FOR
    {
        return Ok(Json(checks.clone()));
    }
    let node = api.node.clone();
    let examined = tokio::task::spawn_blocking(move || crate::doctor::examine(&node)).await;
    let checks = examined.map_err(|_| {
        ApiError::coded(
            "E_INTERNAL",
            "The node's look at itself did not end well; see its log.",
        )
    })?;
    *last = Some((Instant::now(), checks.clone()));
    Ok(Json(checks))
}

/// The node's metrics in the Prometheus text format. Not part of the OpenAPI document.
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        api.node.metrics(),
    )
}

/// The network's genesis file, byte for byte: its digest is the chain id.
#[utoipa::path(get, path = "/v1/genesis", tag = "ledger", responses((status = 200, body = Object)))]
pub(super) async fn genesis(State(api): State<Api>) -> Result<impl IntoResponse, ApiError> {
    let path = api.node.config().data_dir.join("genesis.json");
    let bytes = tokio::fs::read(&path).await.map_err(|error| {
        ApiError::coded("E_IO", format!("The genesis file cannot be read: {error}."))
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes))
}

/// All operators.
#[utoipa::path(get, path = "/v1/operators", tag = "ledger", responses((status = 200, body = Vec<OperatorView>)))]
pub(super) async fn operators(State(api): State<Api>) -> Json<Vec<OperatorView>> {
    Json(api.node.read(views::operators))
}

/// Open proposals, and those that were closed lately.
#[utoipa::path(get, path = "/v1/proposals", tag = "ledger", responses((status = 200, body = Vec<ProposalView>)))]
pub(super) async fn proposals(State(api): State<Api>) -> Json<Vec<ProposalView>> {
    Json(api.node.read(proposal_views::proposals))
}

/// The ledger's parameters in force, by name.
#[utoipa::path(get, path = "/v1/parameters", tag = "ledger", responses((status = 200, body = Object)))]
pub(super) async fn parameters(State(api): State<Api>) -> Json<Parameters> {
    Json(api.node.read(|ledger| ledger.parameters().clone()))
}

/// All machines.
#[utoipa::path(get, path = "/v1/machines", tag = "ledger", responses((status = 200, body = Vec<MachineView>)))]
pub(super) async fn machines(State(api): State<Api>) -> Json<Vec<MachineView>> {
    Json(api.node.read(|ledger| {
        ledger
            .machines()
            .map(|machine| views::machine(ledger, machine))
            .collect()
    }))
}

/// All accounts.
#[utoipa::path(get, path = "/v1/accounts", tag = "ledger", responses((status = 200, body = Vec<AccountView>)))]
pub(super) async fn accounts(State(api): State<Api>) -> Json<Vec<AccountView>> {
    Json(api.node.read(views::accounts))
}

/// All images.
#[utoipa::path(get, path = "/v1/images", tag = "ledger", responses((status = 200, body = Vec<ImageView>)))]
pub(super) async fn images(State(api): State<Api>) -> Json<Vec<ImageView>> {
    Json(api.node.read(|ledger| {
        ledger
            .images()
            .map(|image| views::image(ledger, image))
            .collect()
    }))
}

/// One image.
#[utoipa::path(
    get, path = "/v1/images/{account}/{name}", tag = "ledger",
    params(("account" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = ImageView), (status = 404, body = ErrorBody))
)]
pub(super) async fn image(
    State(api): State<Api>,
    Path((account, name)): Path<(String, String)>,
) -> Answer<ImageView> {
    api.node.read(|ledger| {
        let image = ledger
            .image_by_name(&format!("{account}/{name}"))
            .ok_or_else(|| ApiError::ledger(Code::UnknownImage))?;
        Ok(Json(views::image(ledger, image)))
    })
}

/// Which VMs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct VmFilter {
    /// Only those of this account.
    account: Option<String>,
}

/// All VMs, or those of one account.
#[utoipa::path(
    get, path = "/v1/vms", tag = "vm", params(VmFilter),
    responses((status = 200, body = Vec<VmView>), (status = 404, body = ErrorBody))
)]
pub(super) async fn vms(
    State(api): State<Api>,
    Query(filter): Query<VmFilter>,
) -> Answer<Vec<VmView>> {
    api.node.read(|ledger| {
        let Some(name) = &filter.account else {
            return Ok(Json(ledger.vms().map(|vm| views::vm(ledger, vm)).collect()));
        };
        let account = ledger
            .account_by_name(name)
            .ok_or_else(|| ApiError::ledger(Code::UnknownAccount))?;
        Ok(Json(
            ledger
                .vms_of(account.id)
                .map(|vm| views::vm(ledger, vm))
                .collect(),
        ))
    })
}

/// One VM.
#[utoipa::path(
    get, path = "/v1/vms/{account}/{name}", tag = "vm",
    params(("account" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = VmView), (status = 404, body = ErrorBody))
)]
pub(super) async fn vm(
    State(api): State<Api>,
    Path((account, name)): Path<(String, String)>,
) -> Answer<VmView> {
    api.node
        .read(|ledger| Ok(Json(views::vm(ledger, find_vm(ledger, &account, &name)?))))
}

/// Where placement would put a VM now, and why.
#[utoipa::path(
    get, path = "/v1/vms/{account}/{name}/explain", tag = "vm",
    params(("account" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = ExplanationView), (status = 404, body = ErrorBody))
)]
pub(super) async fn explain(
    State(api): State<Api>,
    Path((account, name)): Path<(String, String)>,
) -> Answer<ExplanationView> {
    api.node.read(|ledger| {
        let vm = find_vm(ledger, &account, &name)?;
        let explanation = ledger
            .explain(vm.id)
            .ok_or_else(|| ApiError::ledger(Code::UnknownVm))?;
        Ok(Json(views::explanation(ledger, vm, &explanation)))
    })
}

/// The VM of that name.
pub(super) fn find_vm<'a>(
    ledger: &'a Ledger,
    account: &str,
    name: &str,
) -> Result<&'a VmRecord, ApiError> {
    let account = ledger
        .account_by_name(account)
        .ok_or_else(|| ApiError::ledger(Code::UnknownAccount))?;
    ledger
        .vm_by_name(account.id, name)
        .ok_or_else(|| ApiError::ledger(Code::UnknownVm))
}
