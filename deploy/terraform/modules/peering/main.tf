# A VPC peering between two regions, its acceptance on the other side, and the routes of both. One provider does both sides:
# the region argument says where.

resource "aws_vpc_peering_connection" "this" {
  region      = var.from.aws_region
  vpc_id      = var.from.vpc_id
  peer_vpc_id = var.to.vpc_id
  peer_region = var.to.aws_region
  tags        = merge(var.tags, { Name = "${var.name}-${var.from.region}-${var.to.region}" })
}

resource "aws_vpc_peering_connection_accepter" "this" {
  region                    = var.to.aws_region
  vpc_peering_connection_id = aws_vpc_peering_connection.this.id
  auto_accept               = true
  tags                      = merge(var.tags, { Name = "${var.name}-${var.from.region}-${var.to.region}" })
}

resource "aws_route" "from" {
  count = var.from.route_tables

  region                    = var.from.aws_region
  route_table_id            = var.from.route_table_ids[count.index]
  destination_cidr_block    = var.to.cidr
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.vpc_peering_connection_id
}

resource "aws_route" "to" {
  count = var.to.route_tables

  region                    = var.to.aws_region
  route_table_id            = var.to.route_table_ids[count.index]
  destination_cidr_block    = var.from.cidr
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.vpc_peering_connection_id
}
