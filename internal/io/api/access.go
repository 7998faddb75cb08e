package api

import (
	"context"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"baton/api/v1/batonv1connect"
	"baton/internal/core/cluster"
	"baton/internal/io/identity"
)

// role is what somebody may do; each includes those before it.
type role uint8

const (
	nobody  role = iota
	view         // see everything that has no effect
	operate      // also move, start and stop groups
	admin        // also change the configuration, give access, change the key
	node         // a node of the cluster, by its certificate
	// guest holds an invitation: it may do what is for guests, and nothing else; nobody else may do that.
	guest
)

var roleNames = map[role]string{nobody: "nobody", view: "view", operate: "operate", admin: "admin", node: "node", guest: "invitation"}

func (r role) String() string { return roleNames[r] }

// roleOf returns the role that a token may have by that name, or nobody.
func roleOf(name string) role {
	for _, r := range []role{view, operate, admin} {
		if name == r.String() {
			return r
		}
	}
	return nobody
}

func (r role) may(needs role) bool {
	if r == guest || needs == guest {
		return r == needs
	}
	return r >= needs && needs != nobody
}

// rules says which role each procedure needs. What stands in no line is refused; a test holds the list
// against the schema. Other paths, which are for monitors, need view.
var rules = map[string]role{
	batonv1connect.BatonStatusProcedure:   view,
	batonv1connect.BatonWatchProcedure:    view,
	batonv1connect.BatonExplainProcedure:  view,
	batonv1connect.BatonHistoryProcedure:  view,
	batonv1connect.BatonVersionProcedure:  view,
	batonv1connect.BatonSwitchProcedure:   operate,
	batonv1connect.BatonFailbackProcedure: operate,

	batonv1connect.ObserveLogsProcedure:   view,
	batonv1connect.ObserveReportProcedure: admin,

	batonv1connect.ActPauseProcedure:   operate,
	batonv1connect.ActResumeProcedure:  operate,
	batonv1connect.ActPinProcedure:     operate,
	batonv1connect.ActUnpinProcedure:   operate,
	batonv1connect.ActDrainProcedure:   operate,
	batonv1connect.ActUndrainProcedure: operate,
	batonv1connect.ActStopProcedure:    operate,
	batonv1connect.ActStartProcedure:   operate,
	batonv1connect.ActRestartProcedure: operate,
	batonv1connect.ActClearProcedure:   operate,

	batonv1connect.ConfigGetConfigProcedure:     view,
	batonv1connect.ConfigListRevisionsProcedure: view,
	batonv1connect.ConfigApplyProcedure:         admin,
	batonv1connect.ConfigDropDraftProcedure:     admin,
	batonv1connect.ConfigValidateProcedure:      admin,
	batonv1connect.ConfigRestoreProcedure:       admin,

	batonv1connect.AccessListTokensProcedure:  admin,
	batonv1connect.AccessAddTokenProcedure:    admin,
	batonv1connect.AccessRevokeTokenProcedure: admin,
	batonv1connect.AccessInviteProcedure:      admin,
	batonv1connect.AccessRotateKeyProcedure:   admin,

	batonv1connect.MembersFormProcedure: admin,

	batonv1connect.JoinLookProcedure:  guest,
	batonv1connect.JoinFetchProcedure: guest,

	batonv1connect.PlanForeseeProcedure: view,

	batonv1connect.KeysGetKeysProcedure:        node,
	batonv1connect.KeysStepKeyProcedure:        node,
	batonv1connect.MembersListMembersProcedure: node,
}

// Rules returns, for each procedure ("Service/Call"), the role that it needs.
func Rules() map[string]string {
	all := make(map[string]string)
	for path, r := range rules {
		all[strings.TrimPrefix(path, schemaPackage)] = r.String()
	}
	return all
}

// schemaPackage begins the path of every procedure.
const schemaPackage = "/baton.v1."

// needs returns the role that a path needs; nobody: no rule says so, and nobody may.
func needs(path string) role {
	if strings.HasPrefix(path, schemaPackage) {
		return rules[path]
	}
	return view
}

// recheck is how often it is looked whether who asked still may, while the answer takes long.
const recheck = 2 * time.Second

// refusal tells why somebody may not.
type refusal struct {
	code connect.Code
	text string
	hint string
}

func (r *refusal) Error() string { return r.text }

// refuse answers a request that is not let through, in the protocol that it speaks.
func refuse(w http.ResponseWriter, r *http.Request, why *refusal) {
	writer := connect.NewErrorWriter()
	if writer.IsSupported(r) {
		// An error here means that the peer has gone.
		_ = writer.Write(w, r, failure(why.code, why.hint, "%s", why.text))
		return
	}
	status := http.StatusForbidden
	if why.code == connect.CodeUnauthenticated {
		status = http.StatusUnauthorized
	}
	http.Error(w, why.text, status)
}

// check tells why a peer may not ask for a path; nil: it may.
func (p peer) check(path string) *refusal {
	least := needs(path)
	switch {
	case p.role.may(least):
		return nil
	case least == nobody:
		return &refusal{connect.CodeUnimplemented, "this agent knows no call " + clip(path), "baton version tells the agent's version"}
	case least == guest:
		return &refusal{connect.CodePermissionDenied, "that is for who holds an invitation", "baton join ADDRESS TOKEN, as baton invite prints it"}
	case least == node:
		return &refusal{connect.CodePermissionDenied, "that is for nodes to ask each other", ""}
	case p.role == guest:
		return &refusal{connect.CodePermissionDenied, "an invitation is for joining only", "baton join ADDRESS TOKEN"}
	}
	return &refusal{connect.CodePermissionDenied, p.String() + " has the role " + p.role.String() + ", and this needs " + least.String(),
		"have an administrator make another one: baton token add NAME --role " + least.String()}
}

// clip keeps a path that somebody else made up short enough for one line.
func clip(path string) string {
	if len(path) > 80 {
		return path[:80] + "…"
	}
	return path
}

// local lets requests of the socket through whose peer may use the API, and tells the others why not.
func local(self cluster.NodeID, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := peerOf(r.Context())
		if why := p.refusal(systemGroup); why != "" {
			refuse(w, r, &refusal{connect.CodePermissionDenied, why, "use sudo, or have root add you: usermod -aG " + GroupName + " USER"})
			return
		}
		p.role, p.node = admin, self
		if why := p.check(r.URL.Path); why != nil {
			refuse(w, r, why)
			return
		}
		next.ServeHTTP(w, r.WithContext(withPeer(r.Context(), p)))
	})
}

// remote lets requests that came over TLS through whose credential is good for them. To all others it says
// nothing about the cluster.
func remote(b AccessBackend, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := r.Context().Value(callerKey{}).(*identity.Caller)
		credential := r.Header.Get("Authorization")
		path := r.URL.Path
		may := func() (peer, *refusal) {
			p, why := who(b, caller, credential)
			if why == nil {
				why = p.check(path)
			}
			return p, why
		}
		p, why := may()
		if why != nil {
			w.Header().Set("Connection", "close") // who has no business here is not waited for
			refuse(w, r, why)
			return
		}
		ctx, cancel := context.WithCancel(withPeer(r.Context(), p))
		defer cancel()
		defer watch(may, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// watch ends a request once who asked no longer may. What it returns ends the watching.
func watch(may func() (peer, *refusal), end func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(recheck)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if _, why := may(); why != nil {
					end()
				}
			}
		}
	}()
	return func() { close(done) }
}

// who finds out who asks, by token, invitation or certificate. A token that is given counts, also for a node.
func who(b AccessBackend, caller *identity.Caller, credential string) (peer, *refusal) {
	if credential == "" {
		if caller != nil {
			if id, ok := caller.Node(); ok {
				return peer{name: "node " + string(id), role: node}, nil
			}
		}
		return peer{}, &refusal{connect.CodeUnauthenticated, "a token is needed here", "baton context add, as baton token add prints it on a node"}
	}
	text, found := strings.CutPrefix(credential, "Bearer ")
	if !found {
		return peer{}, &refusal{connect.CodeUnauthenticated, "the credential is no bearer token", "Authorization: Bearer TOKEN"}
	}
	if secret, err := identity.ParseToken(text); err == nil {
		return holder(b.Tokens(), identity.Hash(secret), time.Now())
	}
	if i, err := identity.ParseInvitation(text); err == nil {
		id, err := b.Invited(i.Secret)
		if err != nil {
			return peer{}, &refusal{connect.CodeUnauthenticated, err.Error(), "make another one on a node of the cluster: baton invite NODE"}
		}
		return peer{name: "invitation for " + string(id), role: guest, invited: id, secret: i.Secret}, nil
	}
	return peer{}, &refusal{connect.CodeUnauthenticated, "the token is cut short or changed", "copy it again as a whole"}
}

// holder finds the token whose secret has the hash. All are compared, in constant time.
func holder(tokens []cluster.Token, hash []byte, now time.Time) (peer, *refusal) {
	var found *cluster.Token
	for i := range tokens {
		if subtle.ConstantTimeCompare(tokens[i].Hash, hash) == 1 {
			found = &tokens[i]
		}
	}
	switch {
	case found == nil:
		return peer{}, &refusal{connect.CodeUnauthenticated, "the token is not valid here: it was revoked, or is another cluster's", "an administrator makes one: baton token add NAME --role ROLE"}
	case Expired(found, now):
		return peer{}, &refusal{connect.CodeUnauthenticated, "the token " + found.Name + " has expired, at " + stamp(found.Until).AsTime().Format(time.DateTime) + " UTC",
			"an administrator makes another one: baton token add NAME --role " + found.Role}
	}
	return peer{name: "token " + found.Name, role: roleOf(found.Role)}, nil
}

// Expired tells whether a token's time is over.
func Expired(t *cluster.Token, now time.Time) bool {
	return t.Until != 0 && now.UnixNano() >= int64(t.Until)
}
