# Clients come in here. The addresses are fixed, so that DNS may name them.

resource "aws_eip" "balancer" {
  count = 3

  region = local.aws
  domain = "vpc"
  tags   = merge(local.tags, { Name = "${local.prefix}-balancer-${count.index}" })
}

resource "aws_lb" "this" {
  region                           = local.aws
  name                             = substr(local.prefix, 0, 32)
  load_balancer_type               = "network"
  internal                         = false
  security_groups                  = [aws_security_group.balancer.id]
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.deletion_protection
  tags                             = local.tags

  dynamic "subnet_mapping" {
    for_each = range(3)
    content {
      subnet_id     = aws_subnet.public[subnet_mapping.value].id
      allocation_id = aws_eip.balancer[subnet_mapping.value].id
    }
  }
}

resource "aws_lb_target_group" "api" {
  region               = local.aws
  name                 = substr("${local.prefix}-api", 0, 32)
  vpc_id               = aws_vpc.this.id
  protocol             = "TCP"
  port                 = local.ports.api
  target_type          = "instance"
  preserve_client_ip   = true
  deregistration_delay = 30 # live clients are asked to go elsewhere within 20 s
  health_check {
    protocol            = "HTTP"
    port                = local.ports.api
    path                = "/healthz"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
    matcher             = "200"
  }
  tags = local.tags
}

resource "aws_lb_listener" "api" {
  region            = local.aws
  load_balancer_arn = aws_lb.this.arn
  port              = local.client_port
  protocol          = local.tls ? "TLS" : "TCP"
  certificate_arn   = var.certificate_arn
  ssl_policy        = local.tls ? "ELBSecurityPolicy-TLS13-1-2-2021-06" : null
  alpn_policy       = local.tls ? "HTTP1Only" : null # the nodes' plain port speaks HTTP/1.1
  tags              = local.tags
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api.arn
  }
}

resource "aws_lb_target_group" "dns" {
  count = var.dns_zone == null ? 0 : 1

  region             = local.aws
  name               = substr("${local.prefix}-dns", 0, 32)
  vpc_id             = aws_vpc.this.id
  protocol           = "TCP_UDP"
  port               = local.ports.dns
  target_type        = "instance"
  preserve_client_ip = true
  health_check {
    protocol = "HTTP"
    port     = local.ports.api
    path     = "/healthz"
    interval = 10
    matcher  = "200"
  }
  tags = local.tags
}

resource "aws_lb_listener" "dns" {
  count = var.dns_zone == null ? 0 : 1

  region            = local.aws
  load_balancer_arn = aws_lb.this.arn
  port              = local.ports.dns
  protocol          = "TCP_UDP"
  tags              = local.tags
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.dns[0].arn
  }
}
