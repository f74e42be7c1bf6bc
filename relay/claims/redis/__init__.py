"""The claim store on Redis or Valkey: a single server, the master of Sentinel, or a Cluster.

It offers `store.RedisStore`, and `servers.RedisServers`, which the settings build from a URL. It may import
`relay.claims.wire_form`, `relay.runtime` and `relay.core`.
"""
