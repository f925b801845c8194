# Varnish with its builtin rules. `larder-bench` fills in the places; the store is `malloc,1g`.
vcl 4.1;

backend origin {
  .host = "${HOST}";
  .port = "${PORT}";
}
