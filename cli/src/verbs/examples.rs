//! One example for each verb, which its help shows first.

/// The example of a verb as the help shows it; empty if there is none.
pub fn text(program: &str, words: &str) -> String {
    match find(program, words) {
        Some("") => format!("Example:\n    {program} {words}\n\n"),
        Some(rest) => format!("Example:\n    {program} {words} {rest}\n\n"),
        None => String::new(),
    }
}

fn find(program: &str, words: &str) -> Option<&'static str> {
    let table = if program == "avouch-agent" { AGENT } else { SERVER };
    table.iter().find(|(verb, _)| *verb == words).map(|(_, rest)| *rest)
}

/// What follows the words of each verb.
const SERVER: &[(&str, &str)] = &[
    ("run", "-config /etc/avouch/server.conf"),
    ("validate", "-config /etc/avouch/server.conf"),
    ("backup", "-config /etc/avouch/server.conf /var/backups/avouch.db"),
    ("restore", "-config /etc/avouch/server.conf /var/backups/avouch.db"),
    ("agent ban", "-spiffeID spiffe://example.org/spire/agent/x509pop/0a1b"),
    ("agent count", "-banned true"),
    ("agent evict", "-spiffeID spiffe://example.org/spire/agent/x509pop/0a1b"),
    ("agent list", "-attestationType x509pop -output json"),
    ("agent purge", "-expiredFor 720h -dryRun"),
    ("agent show", "-spiffeID spiffe://example.org/spire/agent/x509pop/0a1b"),
    ("bundle count", ""),
    ("bundle delete", "-id spiffe://other.org -mode dissociate"),
    ("bundle list", "-id spiffe://other.org -format spiffe"),
    ("bundle set", "-id spiffe://other.org -format spiffe -path other.json"),
    ("bundle show", "-format spiffe > bundle.json"),
    ("debug getinfo", "-output json"),
    ("entry count", "-parentID spiffe://example.org/cluster"),
    (
        "entry create",
        "-parentID spiffe://example.org/cluster -spiffeID spiffe://example.org/web -selector unix:user:www-data",
    ),
    ("entry delete", "-entryID 8f1c1d0e-4a53-4b8e-9d5c-3f1f0e6f7a11"),
    ("entry show", "-spiffeID spiffe://example.org/web"),
    (
        "entry update",
        "-entryID 8f1c1d0e-4a53-4b8e-9d5c-3f1f0e6f7a11 -parentID spiffe://example.org/cluster -spiffeID spiffe://example.org/web -selector unix:user:web",
    ),
    ("healthcheck", "-verbose"),
    ("jwt mint", "-spiffeID spiffe://example.org/web -audience api.example.org -ttl 5m"),
    ("localauthority jwt activate", "-authorityID pT5vKq2ZrWc8Xy1LhB7nDf4JsGm9Ta3E"),
    ("localauthority jwt prepare", ""),
    ("localauthority jwt revoke", "-authorityID pT5vKq2ZrWc8Xy1LhB7nDf4JsGm9Ta3E"),
    ("localauthority jwt show", ""),
    ("localauthority jwt taint", "-authorityID pT5vKq2ZrWc8Xy1LhB7nDf4JsGm9Ta3E"),
    ("localauthority x509 activate", "-authorityID 64137c90d2b7f0e5a1c94e8b3f6d2a7719c5d448"),
    ("localauthority x509 prepare", ""),
    ("localauthority x509 revoke", "-authorityID 64137c90d2b7f0e5a1c94e8b3f6d2a7719c5d448"),
    ("localauthority x509 show", ""),
    ("localauthority x509 taint", "-authorityID 64137c90d2b7f0e5a1c94e8b3f6d2a7719c5d448"),
    ("logger get", ""),
    ("logger reset", ""),
    ("logger set", "-level debug"),
    ("token generate", "-spiffeID spiffe://example.org/cluster -ttl 600"),
    ("upstreamauthority revoke", "-subjectKeyID 64137c90d2b7f0e5a1c94e8b3f6d2a7719c5d448"),
    ("upstreamauthority taint", "-subjectKeyID 64137c90d2b7f0e5a1c94e8b3f6d2a7719c5d448"),
    ("x509 mint", "-spiffeID spiffe://example.org/web -dns web.example.org -write ."),
];

const AGENT: &[(&str, &str)] = &[
    ("run", "-config /etc/avouch/agent.conf -joinTokenFile /run/avouch/token"),
    ("validate", "-config /etc/avouch/agent.conf"),
    ("api fetch", "-write ."),
    ("api fetch x509", "-write ."),
    ("api fetch jwt", "-audience api.example.org -output json"),
    ("api validate jwt", "-audience api.example.org -svid \"$TOKEN\""),
    ("validate jwt", "-audience api.example.org -svid \"$TOKEN\""),
    ("api watch", ""),
    ("debug getinfo", "-socketPath /run/avouch/admin.sock"),
    ("healthcheck", "-verbose"),
    ("logger get", "-socketPath /run/avouch/admin.sock"),
    ("logger reset", "-socketPath /run/avouch/admin.sock"),
    ("logger set", "-level debug -socketPath /run/avouch/admin.sock"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_without_flags_is_the_verb_alone() {
        assert_eq!(text("avouch-server", "bundle count"), "Example:\n    avouch-server bundle count\n\n");
        assert_eq!(text("avouch-server", "nope"), "");
    }
}
