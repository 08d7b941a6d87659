//! Actions on an account's keys and quota, and what a delegated key may do.

use crate::action::{AccountQuota, AccountRotate, Action, KeyDelegate, KeyRevoke};
use crate::code::Code;
use crate::commit::{Change, Subject};
use crate::ids::{AccountId, OperatorId};
use crate::ledger::Ledger;
use crate::ledger::execute::{Done, Refusal, refuse};
use crate::ledger::indexes::Principal;
use crate::records::Delegation;
use crate::transaction::Transaction;

/// Most delegated keys of one account.
const DELEGATIONS_MAX: usize = 16;

impl Ledger {
    pub(super) fn account_changed(&mut self, account: AccountId) -> Done {
        self.dirty.accounts.insert(account);
        self.changes.push(Change::AccountChanged { account });
        Ok(Some(Subject::Account(account)))
    }

    pub(super) fn account_quota(&mut self, sponsor: OperatorId, set: &AccountQuota) -> Done {
        let account = self
            .account_by_name(&set.account)
            .ok_or(Code::UnknownAccount)?;
        let id = account.id;
        if account.sponsor != sponsor {
            return Err(Code::Unauthorised.into());
        }
        self.accounts[id.index()].quota = set.quota;
        self.account_changed(id)
    }

    pub(super) fn account_rotate(&mut self, id: AccountId, rotate: &AccountRotate) -> Done {
        if self.indexes.keys.contains_key(&rotate.key) {
            return Err(Code::KeyInUse.into());
        }
        let old = std::mem::replace(&mut self.accounts[id.index()].key, rotate.key);
        self.indexes.keys.remove(&old);
        self.indexes.keys.insert(rotate.key, Principal::Account(id));
        self.account_changed(id)
    }

    pub(super) fn key_delegate(&mut self, id: AccountId, delegate: &KeyDelegate) -> Done {
        let now_ms = self.clock.time_ms;
        if delegate.until_ms <= now_ms {
            return refuse(Code::Expired, "until_ms");
        }
        // Room is made by those that have run out.
        let spent = |d: &Delegation| d.until_ms < now_ms || d.key == delegate.key;
        let account = &self.accounts[id.index()];
        let left = account.delegations.iter().filter(|d| !spent(d)).count();
        if left >= DELEGATIONS_MAX {
            return Err(Code::TooMany.into());
        }
        match self.indexes.keys.get(&delegate.key) {
            None => {}
            Some(Principal::Delegate(of)) if *of == id => {}
            Some(_) => return Err(Code::KeyInUse.into()),
        }
        let account = &mut self.accounts[id.index()];
        for gone in account.delegations.extract_if(.., |d| spent(d)) {
            self.indexes.keys.remove(&gone.key);
        }
        account.delegations.push(Delegation {
            key: delegate.key,
            actions: delegate.actions.clone(),
            vms: delegate.vms.clone(),
            until_ms: delegate.until_ms,
        });
        self.indexes
            .keys
            .insert(delegate.key, Principal::Delegate(id));
        self.account_changed(id)
    }

    pub(super) fn key_revoke(&mut self, id: AccountId, revoke: &KeyRevoke) -> Done {
        let delegations = &mut self.accounts[id.index()].delegations;
        let at = delegations.iter().position(|d| d.key == revoke.key);
        delegations.remove(at.ok_or(Code::UnknownDelegation)?);
        self.indexes.keys.remove(&revoke.key);
        self.account_changed(id)
    }

    /// A delegated key stands for its account if the delegation allows this very action.
    pub(super) fn undelegate(
        &self,
        principal: Principal,
        transaction: &Transaction,
    ) -> Result<Principal, Refusal> {
        let Principal::Delegate(id) = principal else {
            return Ok(principal);
        };
        let delegations = &self.accounts[id.index()].delegations;
        let delegation = delegations.iter().find(|d| d.key == transaction.signer);
        let delegation = delegation.ok_or(Code::UnknownDelegation)?;
        if delegation.until_ms < self.clock.time_ms {
            return refuse(Code::Expired, "delegation");
        }
        let action = &transaction.action;
        let kind = delegation.actions.iter().any(|kind| kind == action.kind());
        let within = delegation.vms.is_empty()
            || vms_of_action(action).is_some_and(|names| {
                names
                    .iter()
                    .all(|name| delegation.vms.iter().any(|vm| vm == name))
            });
        if kind && within {
            Ok(Principal::Account(id))
        } else {
            Err(Code::Unauthorised.into())
        }
    }
}

/// VMs that an action of an account names; `None` if it is not about VMs.
fn vms_of_action(action: &Action) -> Option<Vec<&str>> {
    match action {
        Action::VmCreate(a) => Some(vec![&a.name]),
        Action::VmDelete(a) | Action::VmStop(a) | Action::VmStart(a) | Action::VmReboot(a) => {
            Some(vec![&a.vm])
        }
        Action::VmRename(a) => Some(vec![&a.vm, &a.name]),
        Action::VmResize(a) => Some(vec![&a.vm]),
        Action::VmPlace(a) => Some(vec![&a.vm]),
        Action::VmDispute(a) => Some(vec![&a.vm]),
        _ => None,
    }
}
