"""The real parts that the tests stand on: servers, clients, and what AVideo sends."""
