// An OpenID provider for the tests: panva's oidc-provider, certified by the OpenID Foundation, with one client and three people.
// Prints its port. Whoever signs in is whom the form names; what they are a member of stands below.
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const [clientId, secret, redirectUri, groupsIn] = process.argv.slice(2);
const GROUPS = { olga: ["platform", "staff"], victor: ["staff"], nobody: ["guests"] };
const server = createServer();
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: clientId,
      redirect_uris: [redirectUri],
      response_types: ["code"],
      grant_types: ["authorization_code"],
      ...(secret ? { client_secret: secret } : { token_endpoint_auth_method: "none" }),
    },
  ],
  claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
  scopes: ["openid", "email", "groups"],
  conformIdTokenClaims: groupsIn === "userinfo",
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
  cookies: { keys: ["a key for tests"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true, groups: GROUPS[id] || [] }),
  }),
});
server.on("request", provider.callback());
console.log(server.address().port);
