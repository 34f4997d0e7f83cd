//! The base rules: compiled in, in force for every request, and neither removed nor asked away.
//!
//! A folder only narrows what these leave. Never carries `@ask`: no yes of anybody goes beyond them. They stand twice: one by
//! one, so that a denial has a name, and drawn together, so that what they let pass costs one rule and not nine.

use crate::reason::Reason;

/// What the ID of a base rule begins with; no rule of a folder may.
pub(crate) const PREFIX: &str = "base.";

/// One base rule and what its denial is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaseRule {
    pub id: &'static str,
    pub text: &'static str,
    pub reason: Reason,
}

/// All of them; of several that deny at once, the first one is the reason that is told.
pub(crate) const RULES: [BaseRule; 9] = [
    BaseRule {
        id: "base.standing",
        text: r#"@id("base.standing") forbid (principal, action, resource) unless { principal.active };"#,
        reason: Reason::Standing,
    },
    BaseRule {
        id: "base.end",
        text: r#"@id("base.end") forbid (principal, action, resource) unless { context.now < principal.ends };"#,
        reason: Reason::Ended,
    },
    BaseRule {
        id: "base.owner",
        text: r#"@id("base.owner") forbid (principal, action, resource) unless { principal.owner_active };"#,
        reason: Reason::Owner,
    },
    BaseRule {
        id: "base.worn",
        text: r#"@id("base.worn") forbid (principal, action, resource)
                 when { context.worn_by_ai_agent } unless { principal is AiAgent };"#,
        reason: Reason::Worn,
    },
    BaseRule {
        id: "base.environment",
        text: r#"@id("base.environment") forbid (principal, action, resource)
                 unless { principal.environment == resource.environment };"#,
        reason: Reason::Environment,
    },
    BaseRule {
        id: "base.domain",
        text: r#"@id("base.domain") forbid (principal, action, resource)
                 unless { principal.domains.contains(resource.domain) };"#,
        reason: Reason::Domain,
    },
    BaseRule {
        id: "base.sensitivity",
        text: r#"@id("base.sensitivity") forbid (principal, action, resource)
                 when { resource.sensitivity > principal.max_sensitivity };"#,
        reason: Reason::Sensitivity,
    },
    BaseRule {
        id: "base.task",
        text: r#"@id("base.task") forbid (principal is AiAgent, action, resource)
                 unless { context has task && context.task.calls_left > 0 };"#,
        reason: Reason::Task,
    },
    BaseRule {
        id: "base.tools",
        text: r#"@id("base.tools") forbid (principal is AiAgent, action, resource)
                 when { context has task }
                 unless { context.task.tools.isEmpty() || context.task.tools.contains(resource.name) };"#,
        reason: Reason::Tools,
    },
];

/// The ID of [`TOGETHER`].
pub(crate) const TOGETHER_ID: &str = "base.together";

/// Denies what any of [`RULES`] denies, and can't be evaluated where the first of them that counts can't.
pub(crate) const TOGETHER: &str = "forbid (principal, action, resource) when {
    !principal.active
    || !(context.now < principal.ends)
    || !principal.owner_active
    || (context.worn_by_ai_agent && !(principal is AiAgent))
    || !(principal.environment == resource.environment)
    || !principal.domains.contains(resource.domain)
    || resource.sensitivity > principal.max_sensitivity
    || (principal is AiAgent && !(context has task && context.task.calls_left > 0))
    || (principal is AiAgent && context has task
        && !(context.task.tools.isEmpty() || context.task.tools.contains(resource.name)))
};";
