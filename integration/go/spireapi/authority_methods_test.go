package spireapi

import (
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const authorityService = "/spire.api.server.localauthority.v1.LocalAuthority/"

const (
	noAuthorityID = "no authority ID provided"
	unexpectedID  = "unexpected authority ID"
	notOldYet     = "only Old local authorities can be tainted: unsupported local authority status: PREPARED"
	noUpstream    = "upstream authority is not configured"
	noWITYet      = "WIT-SVID functionality is not yet implemented"
)

// state is one authority as the server shows it.
type state = localauthorityv1.AuthorityState

// kind is what can be done with the authorities of one kind.
type kind struct {
	show                    func(*api, *grpc.ClientConn) (active, prepared, old *state, err error)
	prepare                 func(*api, *grpc.ClientConn) (*state, error)
	activate, taint, revoke func(*api, *grpc.ClientConn, string) (*state, error)
}

func authorities(conn *grpc.ClientConn) localauthorityv1.LocalAuthorityClient {
	return localauthorityv1.NewLocalAuthorityClient(conn)
}

var x509Kind = kind{
	show: func(a *api, conn *grpc.ClientConn) (active, prepared, old *state, err error) {
		r, err := authorities(conn).GetX509AuthorityState(a.ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
		return r.GetActive(), r.GetPrepared(), r.GetOld(), err
	},
	prepare: func(a *api, conn *grpc.ClientConn) (*state, error) {
		r, err := authorities(conn).PrepareX509Authority(a.ctx, &localauthorityv1.PrepareX509AuthorityRequest{})
		return r.GetPreparedAuthority(), err
	},
	activate: func(a *api, conn *grpc.ClientConn, id string) (*state, error) {
		r, err := authorities(conn).ActivateX509Authority(a.ctx, &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: id})
		return r.GetActivatedAuthority(), err
	},
	taint: func(a *api, conn *grpc.ClientConn, id string) (*state, error) {
		r, err := authorities(conn).TaintX509Authority(a.ctx, &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: id})
		return r.GetTaintedAuthority(), err
	},
	revoke: func(a *api, conn *grpc.ClientConn, id string) (*state, error) {
		r, err := authorities(conn).RevokeX509Authority(a.ctx, &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: id})
		return r.GetRevokedAuthority(), err
	},
}

var jwtKind = kind{
	show: func(a *api, conn *grpc.ClientConn) (active, prepared, old *state, err error) {
		r, err := authorities(conn).GetJWTAuthorityState(a.ctx, &localauthorityv1.GetJWTAuthorityStateRequest{})
		return r.GetActive(), r.GetPrepared(), r.GetOld(), err
	},
	prepare: func(a *api, conn *grpc.ClientConn) (*state, error) {
		r, err := authorities(conn).PrepareJWTAuthority(a.ctx, &localauthorityv1.PrepareJWTAuthorityRequest{})
		return r.GetPreparedAuthority(), err
	},
	activate: func(a *api, conn *grpc.ClientConn, id string) (*state, error) {
		r, err := authorities(conn).ActivateJWTAuthority(a.ctx, &localauthorityv1.ActivateJWTAuthorityRequest{AuthorityId: id})
		return r.GetActivatedAuthority(), err
	},
	taint: func(a *api, conn *grpc.ClientConn, id string) (*state, error) {
		r, err := authorities(conn).TaintJWTAuthority(a.ctx, &localauthorityv1.TaintJWTAuthorityRequest{AuthorityId: id})
		return r.GetTaintedAuthority(), err
	},
	revoke: func(a *api, conn *grpc.ClientConn, id string) (*state, error) {
		r, err := authorities(conn).RevokeJWTAuthority(a.ctx, &localauthorityv1.RevokeJWTAuthorityRequest{AuthorityId: id})
		return r.GetRevokedAuthority(), err
	},
}

func (k kind) shown(a *api) (active, prepared, old *state) {
	a.t.Helper()
	active, prepared, old, err := k.show(a, a.local)
	must(a.t, err)
	return active, prepared, old
}

func (k kind) active(a *api) string {
	a.t.Helper()
	active, _, _ := k.shown(a)
	return active.GetAuthorityId()
}

func (k kind) prepared(a *api) string {
	a.t.Helper()
	made, err := k.prepare(a, a.local)
	must(a.t, err)
	return made.AuthorityId
}

// rotated puts a new authority to use; it gives the one before, and the new one.
func (k kind) rotated(a *api) (old, active string) {
	a.t.Helper()
	old, next := k.active(a), k.prepared(a)
	_, err := k.activate(a, a.local, next)
	must(a.t, err)
	return old, next
}

// named tells whether the own bundle has an authority of this ID, and whether it is tainted.
func named(a *api, id string) (there, tainted bool) {
	a.t.Helper()
	bundle := a.ownBundle()
	for _, key := range bundle.JwtAuthorities {
		if key.KeyId == id {
			return true, key.Tainted
		}
	}
	for _, root := range bundle.X509Authorities {
		if skiOf(a.t, root.Asn1) == id {
			return true, root.Tainted
		}
	}
	return false, false
}

func (k kind) refuse(a *api, call func(*api, *grpc.ClientConn, string) (*state, error), id string, code codes.Code, text string) {
	a.t.Helper()
	_, err := call(a, a.local, id)
	refused(a.t, err, code, text)
}

// authorityProofs of one kind. Its methods are named after the kind; certificate is what texts call what is tainted.
func (k kind) proofs(name, title, certificate string, ends bool) map[string]proof {
	full := func(method string) string { return authorityService + method }
	call := func(do func(*api, *grpc.ClientConn, string) (*state, error)) func(*api, *grpc.ClientConn) error {
		return func(a *api, conn *grpc.ClientConn) error {
			_, err := do(a, conn, "x")
			return err
		}
	}
	return map[string]proof{
		"Get" + name + "AuthorityState": {
			success: func(a *api) {
				active, _, _ := k.shown(a)
				if active.AuthorityId == "" || active.ExpiresAt == 0 || active.UpstreamAuthoritySubjectKeyId != "" {
					a.t.Fatalf("not a self-signed authority with an end: %v", active)
				}
			},
			refusal: denied(func(a *api, conn *grpc.ClientConn) error {
				_, _, _, err := k.show(a, conn)
				return err
			}, full("Get"+name+"AuthorityState")),
			boundary: func(a *api) {
				old, active := k.rotated(a)
				shown, prepared, before, err := k.show(a, a.admin())
				must(a.t, err)
				expect(a.t, "active", shown.AuthorityId, active)
				expect(a.t, "old", before.AuthorityId, old)
				if prepared != nil {
					a.t.Fatalf("nothing is prepared, got %v", prepared)
				}
			},
		},
		"Prepare" + name + "Authority": {
			success: func(a *api) {
				before := k.active(a)
				made := k.prepared(a)
				active, prepared, _ := k.shown(a)
				expect(a.t, "prepared", prepared.GetAuthorityId(), made)
				expect(a.t, "active", active.AuthorityId, before)
				if there, tainted := named(a, made); !there || tainted {
					a.t.Fatal("what is prepared is not published")
				}
			},
			refusal: denied(func(a *api, conn *grpc.ClientConn) error {
				_, err := k.prepare(a, conn)
				return err
			}, full("Prepare"+name+"Authority")),
			// The second takes the place of the first, which stays in the bundle.
			boundary: func(a *api) {
				first, second := k.prepared(a), k.prepared(a)
				_, prepared, _ := k.shown(a)
				expect(a.t, "prepared", prepared.GetAuthorityId(), second)
				k.refuse(a, k.activate, first, codes.InvalidArgument, unexpectedID)
				if there, _ := named(a, first); !there {
					a.t.Fatal("the first has left the bundle")
				}
			},
		},
		"Activate" + name + "Authority": {
			success: func(a *api) {
				old, made := k.active(a), k.prepared(a)
				activated, err := k.activate(a, a.local, made)
				must(a.t, err)
				expect(a.t, "activated", activated.AuthorityId, made)
				active, _, before := k.shown(a)
				expect(a.t, "active", active.AuthorityId, made)
				expect(a.t, "old", before.GetAuthorityId(), old)
			},
			refusal: all(
				func(a *api) { k.refuse(a, k.activate, "", codes.InvalidArgument, noAuthorityID) },
				func(a *api) { k.refuse(a, k.activate, "unknown", codes.InvalidArgument, unexpectedID) },
				func(a *api) { k.refuse(a, k.activate, k.active(a), codes.InvalidArgument, unexpectedID) },
				denied(call(k.activate), full("Activate"+name+"Authority")),
			),
			boundary: func(a *api) {
				old, _ := k.rotated(a)
				k.refuse(a, k.activate, old, codes.Internal, "only Prepared authorities can be activated: unsupported local authority status: OLD")
			},
		},
		"Taint" + name + "Authority": {
			success: func(a *api) {
				old, _ := k.rotated(a)
				tainted, err := k.taint(a, a.local, old)
				must(a.t, err)
				expect(a.t, "tainted", tainted.AuthorityId, old)
				expect(a.t, "its end is told", tainted.ExpiresAt != 0, ends)
				if there, tainted := named(a, old); !there || !tainted {
					a.t.Fatal("the bundle does not say that it is tainted")
				}
			},
			refusal: all(
				func(a *api) { k.refuse(a, k.taint, "", codes.InvalidArgument, noAuthorityID) },
				func(a *api) { k.refuse(a, k.taint, "unknown", codes.InvalidArgument, unexpectedID) },
				func(a *api) {
					k.refuse(a, k.taint, k.active(a), codes.InvalidArgument, "unable to taint current local authority")
				},
				func(a *api) { k.refuse(a, k.taint, k.prepared(a), codes.InvalidArgument, notOldYet) },
				denied(call(k.taint), full("Taint"+name+"Authority")),
			),
			boundary: func(a *api) {
				old, _ := k.rotated(a)
				_, err := k.taint(a, a.local, old)
				must(a.t, err)
				k.refuse(a, k.taint, old, codes.Internal, "failed to taint "+title+" authority: "+certificate+" is already tainted")
			},
		},
		"Revoke" + name + "Authority": {
			success: func(a *api) {
				old, active := k.rotated(a)
				_, err := k.taint(a, a.local, old)
				must(a.t, err)
				revoked, err := k.revoke(a, a.local, old)
				must(a.t, err)
				expect(a.t, "revoked", revoked.AuthorityId, old)
				if there, _ := named(a, old); there {
					a.t.Fatal("it is still in the bundle")
				}
				expect(a.t, "active", k.active(a), active)
			},
			refusal: all(
				func(a *api) {
					k.refuse(a, k.revoke, "", codes.InvalidArgument, "invalid authority ID: no authority ID provided")
				},
				func(a *api) {
					k.refuse(a, k.revoke, k.active(a), codes.InvalidArgument, "invalid authority ID: unable to use current authority")
				},
				denied(call(k.revoke), full("Revoke"+name+"Authority")),
			),
			boundary: func(a *api) {
				old, _ := k.rotated(a)
				k.refuse(a, k.revoke, old, codes.Internal, "failed to revoke "+title+" authority: it is not possible to revoke an untainted "+certificate)
			},
		},
	}
}

// above proves a method about the authority above the server's own, where there is none.
func above(method string, do func(*api, *grpc.ClientConn, string) error) proof {
	return proof{
		success: func(a *api) { refused(a.t, do(a, a.admin(), "ab"), codes.FailedPrecondition, noUpstream) },
		refusal: denied(func(a *api, conn *grpc.ClientConn) error { return do(a, conn, "ab") }, authorityService+method),
		boundary: func(a *api) {
			refused(a.t, do(a, a.local, ""), codes.FailedPrecondition, noUpstream)
		},
	}
}

func noWIT(method string, call func(*api, *grpc.ClientConn) error) proof {
	callers := func(a *api) (may, mayNot *grpc.ClientConn) { return a.local, a.downstream() }
	return unbuilt(noWITYet, call, callers, authorityService+method)
}

var authorityProofs = func() map[string]proof {
	proofs := x509Kind.proofs("X509", "X.509", "root CA", true)
	for name, proof := range jwtKind.proofs("JWT", "JWT", "key", false) {
		proofs[name] = proof
	}
	proofs["TaintX509UpstreamAuthority"] = above("TaintX509UpstreamAuthority", func(a *api, conn *grpc.ClientConn, id string) error {
		_, err := authorities(conn).TaintX509UpstreamAuthority(a.ctx, &localauthorityv1.TaintX509UpstreamAuthorityRequest{SubjectKeyId: id})
		return err
	})
	proofs["RevokeX509UpstreamAuthority"] = above("RevokeX509UpstreamAuthority", func(a *api, conn *grpc.ClientConn, id string) error {
		_, err := authorities(conn).RevokeX509UpstreamAuthority(a.ctx, &localauthorityv1.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: id})
		return err
	})
	proofs["GetWITAuthorityState"] = noWIT("GetWITAuthorityState", func(a *api, conn *grpc.ClientConn) error {
		_, err := authorities(conn).GetWITAuthorityState(a.ctx, &localauthorityv1.GetWITAuthorityStateRequest{})
		return err
	})
	proofs["PrepareWITAuthority"] = noWIT("PrepareWITAuthority", func(a *api, conn *grpc.ClientConn) error {
		_, err := authorities(conn).PrepareWITAuthority(a.ctx, &localauthorityv1.PrepareWITAuthorityRequest{})
		return err
	})
	proofs["ActivateWITAuthority"] = noWIT("ActivateWITAuthority", func(a *api, conn *grpc.ClientConn) error {
		_, err := authorities(conn).ActivateWITAuthority(a.ctx, &localauthorityv1.ActivateWITAuthorityRequest{AuthorityId: "x"})
		return err
	})
	proofs["TaintWITAuthority"] = noWIT("TaintWITAuthority", func(a *api, conn *grpc.ClientConn) error {
		_, err := authorities(conn).TaintWITAuthority(a.ctx, &localauthorityv1.TaintWITAuthorityRequest{AuthorityId: "x"})
		return err
	})
	proofs["RevokeWITAuthority"] = noWIT("RevokeWITAuthority", func(a *api, conn *grpc.ClientConn) error {
		_, err := authorities(conn).RevokeWITAuthority(a.ctx, &localauthorityv1.RevokeWITAuthorityRequest{AuthorityId: "x"})
		return err
	})
	return proofs
}()
